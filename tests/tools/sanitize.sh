#!/bin/sh
# Builds a copy of the tree in build/sanitize with bounds checks, AddressSanitizer and UndefinedBehaviorSanitizer, and
# runs tests on it. Argument: the Python of the virtual environment. ALL=1 runs all that can be run, the slow tests and
# those of attacks among them; without it, what goes through compiled modules and is quick.
#
# The sanitizers' runtime must be loaded before anything else, hence LD_PRELOAD; libstdc++ with it, or the interceptor
# of C++ exceptions finds nothing to intercept when a C++ module (RE2, gRPC) is loaded later. Gateways that tests start
# inherit it all and run in the copy, so launcher, control process and workers are sanitized as well. A report fails
# the test in which it comes (tests/tools/sanitizers.py), and so does in the end a leak of what our modules allocate.
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
tar -cf - --exclude='*.so' --exclude='pygw/*.c' --exclude='__pycache__' --exclude='bench/results' \
    pygw tests bench examples docs deploy *.md setup.py pyproject.toml | tar -xf - -C $copy
cd $copy
PYGW_DEBUG=1 PYGW_SANITIZE=1 "$python" setup.py --quiet build_ext --inplace --parallel "$(nproc 2> /dev/null || echo 2)"

ln -sfn "$OLDPWD/.tools" .tools  # h2spec

marks="not full and not slow"
if [ -n "$ALL" ]; then
    marks="not full or h2spec"
    chosen="tests --ignore=tests/test_sourcecode.py --ignore=tests/fuzz/test_fuzzing.py --ignore=tests/conformance"
    chosen="$chosen --ignore=tests/deploy"
else
    chosen="tests/http2 tests/proxy tests/fuzz tests/test_fastmatch.py tests/test_http_match.py"
    chosen="$chosen tests/end_to_end/test_sanitizers.py tests/end_to_end/test_calls.py tests/end_to_end/test_frames.py"
    chosen="$chosen tests/end_to_end/test_bad_backends.py tests/end_to_end/test_own_answers.py"
    chosen="$chosen tests/end_to_end/test_reload.py tests/end_to_end/test_tls.py tests/end_to_end/test_h2spec.py"
    marks="$marks or h2spec"
fi
existing=$(for path in $chosen; do case $path in --*) echo "$path" ;; *) [ -e "$path" ] && echo "$path" ;; esac; done |
    tr '\n' ' ')
echo "sanitize: running $existing"
# Reports go to files: what a process writes before it aborts is lost in pytest's capture.
rm -rf reports && mkdir reports
status=0
# shellcheck disable=SC2086
env LD_PRELOAD="$(readlink -f "$asan") $(readlink -f "$stdcxx")" PYTHONMALLOC=malloc REPORTS_OF_SANITIZERS="$PWD/reports" \
    ASAN_OPTIONS="leak_check_at_exit=0:abort_on_error=1:log_path=$PWD/reports/asan" \
    UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1:log_path=$PWD/reports/ubsan" \
    "$python" -m pytest -p no:cacheprovider -p tests.tools.sanitizers -m "$marks" \
    --timeout 300 -o faulthandler_timeout=250 $existing || status=$?
if [ -n "$(ls reports)" ]; then
    echo "sanitize: reports:"
    cat reports/*
    exit 1
fi
exit $status
