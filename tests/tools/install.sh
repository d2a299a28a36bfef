#!/bin/sh
# Builds the Go programs that `make test-full` drives into .tools/bin: grpcurl, grpc-go's interop client and server,
# h2spec (versions in go/go.mod); helm and kustomize (deploy/go.mod; a module of their own, so that they do not decide
# which gRPC the interop programs are built from). Where it cannot, it says why and ends well: the tests that need them
# are then skipped, and say so.
cd "$(dirname "$0")" || exit 1
bin=$(cd ../.. && pwd)/.tools/bin
newest=$(sed -n 's/^go \([0-9.]*\)$/\1/p' go/go.mod deploy/go.mod | sort -V | tail -n 1)

if ! command -v go > /dev/null; then
    echo "tools: no Go on the PATH, so grpcurl, grpc-go's interop, h2spec, helm and kustomize are not installed and"
    echo "tools: their tests not run; install Go $newest or newer from https://go.dev/dl/ and run 'make tools' again"
    exit 0
fi

mkdir -p "$bin"
build() {  # module's folder, program, package
    [ "$bin/$2" -nt "$1/go.sum" ] && return
    echo "tools: building $2"
    (cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$bin/$2" "$3") ||
        echo "tools: $2 was not built (see above; Go $newest or newer is needed), so its tests are not run"
}
build go grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl
build go interop_client google.golang.org/grpc/interop/client
build go interop_server google.golang.org/grpc/interop/server
build go h2spec github.com/summerwind/h2spec/cmd/h2spec
build deploy helm helm.sh/helm/v4/cmd/helm
build deploy kustomize sigs.k8s.io/kustomize/kustomize/v5
