#!/bin/sh
# Builds a copy of the tree in build/sanitize with bounds checks, AddressSanitizer and UndefinedBehaviorSanitizer, and
# runs the tests of the data path on it. Argument: the Python of the virtual environment.
#
# The sanitizers' runtime must be loaded before anything else, hence LD_PRELOAD; libstdc++ with it, or the interceptor
# of C++ exceptions finds nothing to intercept when a C++ module (RE2, gRPC) is loaded later. Leaks are not looked for:
# an interpreter never frees all of its own.
set -e
python=$1
cd "$(dirname "$0")/../.."

asan=$(${CC:-cc} -print-file-name=libasan.so)
stdcxx=$(${CC:-cc} -print-file-name=libstdc++.so.6)
if [ "$asan" = libasan.so ] || [ ! -e "$asan" ]; then
    echo "sanitize: not run: ${CC:-cc} has no libasan (Debian: gcc; Fedora: libasan and libubsan)"
    exit 0
fi

copy=build/sanitize
mkdir -p $copy
# Only sources, with their times, so that what did not change is not compiled again.
tar -cf - --exclude='*.so' --exclude='*.c' --exclude='__pycache__' pygw tests examples setup.py pyproject.toml |
    tar -xf - -C $copy
cd $copy
PYGW_DEBUG=1 PYGW_SANITIZE=1 "$python" setup.py --quiet build_ext --inplace --parallel "$(nproc 2> /dev/null || echo 2)"

chosen="tests/http2 tests/proxy tests/test_fastmatch.py tests/end_to_end/test_calls.py"
chosen="$chosen tests/end_to_end/test_bad_backends.py tests/end_to_end/test_frames.py tests/end_to_end/test_own_answers.py"
existing=$(for path in $chosen; do [ -e "$path" ] && echo "$path"; done)
echo "sanitize: running $existing"
# shellcheck disable=SC2086
env LD_PRELOAD="$(readlink -f "$asan") $(readlink -f "$stdcxx")" PYTHONMALLOC=malloc \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
    "$python" -m pytest -p no:cacheprovider -m "not full and not slow" --timeout 600 $existing
