# weighted_picker.pyx: see weighted_picker.pxd.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from .image_index cimport Walk, hash_rule, span_is, walk_next, walk_start
from .image_layout cimport (
    SECTION_REFS, SECTION_RULES, SECTION_SLOTS, TABLE_RULES, BackendRefRecord, ImageHeader, ListRef, RuleRecord, Slot,
)

cdef enum:
    LONGEST_PHASE = 1024         # picks that a state is moved on at its first use, at most


cdef WeightedPicker open_picker(object owner, const uint8_t* base, uint32_t phase, WeightedPicker previous):
    cdef WeightedPicker picker = WeightedPicker.__new__(WeightedPicker)
    picker.header = <const ImageHeader*>base
    picker.base = base
    picker.phase = phase
    picker.weights = <int64_t*>calloc(picker.header.sections[<int>SECTION_REFS].count + 1, sizeof(int64_t))
    picker.started = <uint8_t*>calloc(picker.header.sections[<int>SECTION_RULES].count + 1, 1)
    if picker.weights == NULL or picker.started == NULL:
        raise MemoryError()
    picker.owner = owner
    picker.previous = previous
    if previous is not None:
        previous.inherit(0xffffffff)  # no chains
    return picker


cdef class WeightedPicker:

    def __dealloc__(self):
        free(self.weights)
        free(self.started)

    cdef const BackendRefRecord* refs(self, const RuleRecord* rule) noexcept:
        return <const BackendRefRecord*>(self.base + self.header.sections[<int>SECTION_REFS].offset) + rule.refs.first

    cdef int pick(self, const RuleRecord* rule) noexcept:
        if not self.started[rule.picker]:
            self.start(rule)
        return self.turn(rule)

    # As nginx does it: every backend gains its weight, the one that then has most is picked and pays the sum.
    # After as many picks as the sum (over the greatest common divisor) the state is back where it began.
    cdef int turn(self, const RuleRecord* rule) noexcept:
        cdef const BackendRefRecord* ref = self.refs(rule)
        cdef int64_t* weights = self.weights + rule.refs.first
        cdef int64_t total = 0
        cdef int best = -1
        cdef uint32_t i
        for i in range(rule.refs.count):
            if ref[i].weight == 0:
                continue
            total += ref[i].weight
            weights[i] += ref[i].weight
            if best < 0 or weights[i] > weights[best]:
                best = <int>i
        if best >= 0:
            weights[best] -= total
        return best

    # Puts a new state `phase` picks on, lest all workers begin with the same backend. Done by picking, because only
    # states on the way of picks keep shares exact; so a phase counts round the period, and LONGEST_PHASE at most.
    cdef void start(self, const RuleRecord* rule) noexcept:
        cdef const BackendRefRecord* ref = self.refs(rule)
        cdef uint64_t total = 0
        cdef uint64_t divisor = 0
        cdef uint64_t period = LONGEST_PHASE
        cdef uint32_t i, _
        if self.previous is not None and self.take_over(rule):
            return
        self.started[rule.picker] = True
        for i in range(rule.refs.count):
            total += ref[i].weight
            divisor = greatest_common_divisor(divisor, ref[i].weight)
        if total > 0 and total // divisor < period:
            period = total // divisor
        for _ in range(self.phase % <uint32_t>period):
            self.turn(rule)

    cdef bint take_over(self, const RuleRecord* rule) noexcept:
        cdef const RuleRecord* old
        if rule.refs.count < 2:
            return False         # it has no choice, and its state never moves
        old = self.previous.same_rule(rule, self)
        if old == NULL or not self.previous.started[old.picker]:
            return False
        self.started[rule.picker] = True
        memcpy(
            self.weights + rule.refs.first, self.previous.weights + old.refs.first,
            rule.refs.count * sizeof(int64_t),
        )
        return True

    cdef bint inherit(self, uint32_t rules) noexcept:
        cdef const RuleRecord* rule = (
            <const RuleRecord*>(self.base + self.header.sections[<int>SECTION_RULES].offset)
        )
        cdef uint32_t count = self.header.sections[<int>SECTION_RULES].count
        if self.previous is None:
            return True
        while self.inherited < count and rules > 0:
            if not self.started[self.inherited]:
                self.take_over(&rule[self.inherited])
            self.inherited += 1
            rules -= 1
        if self.inherited < count:
            return False
        self.previous = None
        return True

    # The rule of this image with the route, name (or place), backends and weights of a rule of another one, or NULL.
    cdef const RuleRecord* same_rule(self, const RuleRecord* rule, WeightedPicker other) noexcept:
        cdef const RuleRecord* mine
        cdef const uint8_t* base = other.base
        cdef ListRef table = self.header.tables[<int>TABLE_RULES]
        cdef Walk walk
        cdef uint32_t entry
        walk_start(
            &walk,
            <const Slot*>(self.base + self.header.sections[<int>SECTION_SLOTS].offset) + table.first,
            table.count,
            hash_rule(&self.header.key, base, rule.route, rule.rule_name, rule.index, rule.kind),
        )
        while True:
            entry = walk_next(&walk)
            if entry == 0:
                return NULL
            mine = <const RuleRecord*>(self.base + self.header.sections[<int>SECTION_RULES].offset) + (entry - 1)
            if (
                mine.kind == rule.kind
                and (rule.rule_name.length > 0 or mine.index == rule.index)
                and span_is(self.base, mine.route, base + rule.route.offset, rule.route.length)
                and span_is(self.base, mine.rule_name, base + rule.rule_name.offset, rule.rule_name.length)
            ):
                return mine if self.same_backends(mine, other, rule) else NULL

    cdef bint same_backends(self, const RuleRecord* mine, WeightedPicker other, const RuleRecord* rule) noexcept:
        cdef const BackendRefRecord* a = self.refs(mine)
        cdef const BackendRefRecord* b = other.refs(rule)
        cdef uint32_t i
        if mine.refs.count != rule.refs.count:
            return False
        for i in range(mine.refs.count):
            if a[i].weight != b[i].weight or not span_is(
                self.base, a[i].label, other.base + b[i].label.offset, b[i].label.length
            ):
                return False
        return True


cdef uint64_t greatest_common_divisor(uint64_t a, uint64_t b) noexcept:
    while b != 0:
        a, b = b, a % b
    return a
