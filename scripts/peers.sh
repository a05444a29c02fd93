#!/bin/sh
# Builds the peers that Debian does not have, at the versions of tools/*/go.mod, into .cache/bin: crane, regctl, oras, the
# conformance tool of the distribution specification, versitygw (an S3 server), and into .cache/bin/runtime-tools the validation
# of the runtime specification with the root file system that it uses. What cannot be built is said, and the tests that need it
# skip and say so too.
#
#   peers.sh [NAME…]   build the named ones, or all; those that are there are left
set -u
cd "$(dirname "$0")/.." || exit 1
mkdir -p .cache/bin
bin=$PWD/.cache/bin
log=$PWD/.cache/peers.log
wanted=${*:-crane regctl oras conformance versitygw runtime-tools}
runtimetools=github.com/opencontainers/runtime-tools

# copy_rootfs puts the root file systems of the validation beside its programs.
copy_rootfs() {
    (cd tools/runtimetools && cp -f "$(GOFLAGS= go list -m -f '{{.Dir}}' $runtimetools)"/rootfs-*.tar.gz "$out") >>"$log" 2>&1
}

for name in $wanted; do
    case $name in
    crane) dir=peers package=github.com/google/go-containerregistry/cmd/crane ;;
    regctl) dir=peers package=github.com/regclient/regclient/cmd/regctl ;;
    oras) dir=peers package=oras.land/oras/cmd/oras ;;
    conformance) dir=conformance package=github.com/opencontainers/distribution-spec/conformance ;;
    versitygw) dir=s3 package=github.com/versity/versitygw/cmd/versitygw ;;
    runtime-tools) dir=runtimetools package=tool ;; # every tool of the module
    *)
        echo "peers: there is no $name"
        exit 2
        ;;
    esac
    stamp=$bin/.$name.stamp
    sum=$(cksum <tools/$dir/go.sum)
    [ -x "$bin/$name" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$sum" ] && continue
    echo "peers: building $name"
    out=$bin/$name
    [ $package = tool ] && mkdir -p "$out" && out=$out/
    if (cd tools/$dir && CGO_ENABLED=0 GOFLAGS= go build -ldflags='-s -w' -o "$out" $package) >>"$log" 2>&1 &&
        { [ $package != tool ] || copy_rootfs; }; then
        echo "$sum" >"$stamp"
    else
        echo "peers: $name could not be built (see $log): tests that need it are skipped"
    fi
done
exit 0
