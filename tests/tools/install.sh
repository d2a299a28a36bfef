#!/bin/sh
# Builds the Go programs that `make test-full` drives into .tools/bin: grpcurl, grpc-go's interop client and server,
# h2spec. Their versions are in go/go.mod. Where it cannot, it says why and ends well: the tests that need them are
# then skipped, and say so.
cd "$(dirname "$0")/go" || exit 1
bin=$(cd ../../.. && pwd)/.tools/bin
wanted=$(sed -n 's/^go \([0-9.]*\)$/\1/p' go.mod)

if ! command -v go > /dev/null; then
    echo "tools: no Go on the PATH, so grpcurl, grpc-go's interop and h2spec are not installed and their tests not run"
    echo "tools: install Go $wanted or newer from https://go.dev/dl/ and run 'make tools' again"
    exit 0
fi

mkdir -p "$bin"
build() {
    [ "$bin/$1" -nt go.sum ] && return
    echo "tools: building $1"
    go build -trimpath -o "$bin/$1" "$2" ||
        echo "tools: $1 was not built (see above; Go $wanted or newer is needed), so its tests are not run"
}
build grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
build interop_client google.golang.org/grpc/interop/client
build interop_server google.golang.org/grpc/interop/server
build h2spec github.com/summerwind/h2spec/cmd/h2spec
