#!/bin/sh
# Builds the peers that Debian does not have, at the versions of tools/*/go.mod, into .cache/bin: crane, regctl, oras, the
# conformance tool of the distribution specification, versitygw (an S3 server). What cannot be built is said, and the tests
# that need it skip and say so too.
#
#   peers.sh [NAME…]   build the named ones, or all; those that are there are left
set -u
cd "$(dirname "$0")/.." || exit 1
mkdir -p .cache/bin
bin=$PWD/.cache/bin
log=$PWD/.cache/peers.log
wanted=${*:-crane regctl oras conformance versitygw}

for name in $wanted; do
    case $name in
    crane) dir=peers package=github.com/google/go-containerregistry/cmd/crane ;;
    regctl) dir=peers package=github.com/regclient/regclient/cmd/regctl ;;
    oras) dir=peers package=oras.land/oras/cmd/oras ;;
    conformance) dir=conformance package=github.com/opencontainers/distribution-spec/conformance ;;
    versitygw) dir=s3 package=github.com/versity/versitygw/cmd/versitygw ;;
    *)
        echo "peers: there is no $name"
        exit 2
        ;;
    esac
    stamp=$bin/.$name.stamp
    sum=$(cksum <tools/$dir/go.sum)
    [ -x "$bin/$name" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && continue
    echo "peers: building $name"
    if (cd tools/$dir && CGO_ENABLED=0 GOFLAGS= go build -o "$bin/$name" $package) >>"$log" 2>&1; then
        echo "$sum" >"$stamp"
    else
        echo "peers: $name could not be built (see $log): tests that need it are skipped"
    fi
done
exit 0
