# weighted_picker.pxd: which backendRef of a rule is next. Smooth weighted round robin, one state for each rule.
#
# Smooth: shares are right over every hundred calls, not only over ten thousand. Knows the rules and backendRefs of an
# image and no requests. The image must outlive it: whoever opens it passes what keeps the image alive.

from libc.stdint cimport int64_t, uint8_t, uint32_t
from .image_layout cimport BackendRefRecord, ImageHeader, RuleRecord

cdef class WeightedPicker:
    cdef:
        object owner             # of the image
        const uint8_t* base
        const ImageHeader* header
        int64_t* weights         # by BackendRefRecord: what it has gained and not yet paid
        uint8_t* started         # by rule: whether its state has been put at `phase`
        uint32_t phase
        WeightedPicker previous  # whose states are not all taken over; None: they are, or there is none
        uint32_t inherited       # rules whose states are taken over, if `previous` had any

    # The place in rule.refs whose turn it is; -1: all weights are 0.
    cdef int pick(self, const RuleRecord* rule) noexcept
    # Takes over the states of so many rules more from `previous`; True: that was all, and `previous` is let go.
    cdef bint inherit(self, uint32_t rules) noexcept

    cdef const BackendRefRecord* refs(self, const RuleRecord* rule) noexcept
    cdef int turn(self, const RuleRecord* rule) noexcept
    cdef void start(self, const RuleRecord* rule) noexcept
    cdef bint take_over(self, const RuleRecord* rule) noexcept
    cdef const RuleRecord* same_rule(self, const RuleRecord* rule, WeightedPicker other) noexcept
    cdef bint same_backends(self, const RuleRecord* mine, WeightedPicker other, const RuleRecord* rule) noexcept

# For a proven image. A rule that is the same in the image of `previous`, with equal backends and weights, goes on from
# its state there, others start `phase` picks on. Until inherit() has come to its end, `previous` and its image stay.
cdef WeightedPicker open_picker(object owner, const uint8_t* base, uint32_t phase, WeightedPicker previous)
