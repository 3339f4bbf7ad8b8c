#!/bin/sh
# Makes an arm64 root file system with Python and LiteRT in the folder $1: Debian's packages, unpacked and not set up,
# since qemu-user runs programs from it in place. Needs root, debootstrap and qemu-user-static.
set -eu
root=$1
litert=$2
[ -e "$root/complete" ] && exit 0
rm -rf "$root"
mkdir -p "$root"
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)
debootstrap --foreign --arch=arm64 --variant=minbase --include=python3 bookworm "$root" "${mirror:-}"
for package in "$root"/var/cache/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$root"
done
# Wheels for the Python of bookworm.
python3 -m pip install --quiet --target "$root/opt/wheels" --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \
    --implementation cp "ai-edge-litert==$litert"
# cpuinfo, which XNNPACK asks, crashes on an arm64 whose /proc/cpuinfo speaks of another processor.
core=0
while [ "$core" -lt "$(nproc)" ]; do
    printf 'processor\t: %d\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n' "$core"
    printf 'CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n'
    core=$((core + 1))
done >"$root/proc/cpuinfo"
touch "$root/complete"
