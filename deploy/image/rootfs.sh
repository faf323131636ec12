#!/usr/bin/env bash
# rootfs.sh DIR: makes the root file system that the server runs in, in DIR, which must not be there: what it needs of the packages of
# the Debian that this runs on, and nothing else. It needs apt and dpkg, but not root.
set -euo pipefail
umask 022

mkdir "$1"
root=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,archives}/partial

# apt in folders of its own: only root may write in the system's, and in an image these have no lists.
apt() {
    apt-get -qq -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Retries=3 -o Debug::NoLocking=true "$@"
}

cd "$work/archives"
apt update
apt download libc6 libgcc-s1 ca-certificates
# This one has the copyright of libgcc-s1.
apt download "$(dpkg-deb --field libgcc-s1_*.deb Depends | grep --only-matching --max-count 1 'gcc-[0-9]*-base')"

# Some packages know one of the two places, some the other.
mkdir -p "$root"/usr/{lib,lib64}
ln -s usr/lib usr/lib64 "$root"
# Scanners look here for what is installed where there is no dpkg.
status=$root/var/lib/dpkg/status.d
mkdir -p "$status"
for package in *.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar --extract --directory "$root" --keep-directory-symlink --no-same-owner
    dpkg-deb --field "$package" > "$status/${package%%_*}"
done

# The package's own script, which would do this, needs a system to run in. awk ends the last line of each file.
awk 1 "$root"/usr/share/ca-certificates/mozilla/*.crt > "$root/etc/ssl/certs/ca-certificates.crt"

rm -rf "$root"/etc/{ca-certificates,ld.so.conf.d} "$root/usr/sbin" \
    "$root"/usr/share/{ca-certificates,lintian,man} "$root"/usr/share/doc/*/examples "$root"/usr/lib/*/gconv
find "$root/usr/share/doc" -type f ! -name copyright -delete
# Of the C library, what is for debuggers and profilers, and what a server does not look up names with.
find "$root/usr/lib/" \( -name 'libmemusage.*' -o -name 'libpcprofile.*' -o -name 'libthread_db.*' -o -name 'libc_malloc_debug.*' \
    -o -name 'libBrokenLocale.*' -o -name 'libmvec.*' -o -name 'libnsl.*' -o -name 'libnss_compat.*' -o -name 'libnss_hesiod.*' \) -delete
find "$root" -mindepth 1 -type d -empty -delete

cp --dereference /etc/os-release "$root/etc/os-release"
cat > "$root/etc/passwd" <<'END'
root:x:0:0:root:/:/sbin/nologin
nonroot:x:65532:65532:nonroot:/var/lib/feast-registry:/sbin/nologin
END
cat > "$root/etc/group" <<'END'
root:x:0:
nonroot:x:65532:
END
cat > "$root/etc/nsswitch.conf" <<'END'
passwd: files
group: files
hosts: files dns
END

mkdir -p "$root/usr/local/bin" "$root/tmp" "$root/var/lib/feast-registry"
chmod 1777 "$root/tmp"
# What is started as `feast serve_registry`, as Feast's Helm chart and operator do, is served too.
ln -s feast-registry "$root/usr/local/bin/feast"
# A platform that gives each container a user of its own gives it the group 0.
chmod 775 "$root/var/lib/feast-registry"
if [[ $(id -u) == 0 ]]; then
    chown 65532:0 "$root/var/lib/feast-registry"
fi
