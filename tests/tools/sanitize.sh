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
existing=$(for path in $chosen; do [ -e "$path" ] && echo "$path"; done | tr '\n' ' ')
echo "sanitize: running $existing"
# Reports go to files: what a process writes before it aborts is lost in pytest's capture.
rm -rf reports && mkdir reports
status=0
# shellcheck disable=SC2086
env LD_PRELOAD="$(readlink -f "$asan") $(readlink -f "$stdcxx")" PYTHONMALLOC=malloc \
    ASAN_OPTIONS="detect_leaks=0:abort_on_error=1:log_path=$PWD/reports/asan" \
    UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:log_path=$PWD/reports/ubsan" \
    "$python" -m pytest -p no:cacheprovider -m "not full and not slow" --timeout 300 -o faulthandler_timeout=250 $existing || status=$?
if [ -n "$(ls reports)" ]; then
    echo "sanitize: reports:"
    cat reports/*
    exit 1
fi
exit $status
