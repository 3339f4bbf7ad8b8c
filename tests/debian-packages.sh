#!/bin/sh
# Installs the Debian packages that tests use, where this is possible; tests that miss theirs skip and say so.
set -eu
missing=""
for package in adb dataset-fashion-mnist gcc-arm-none-eabi openssh-client openssh-server strace; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "tests that need$missing will be skipped; install with: sudo apt-get install$missing"
    exit 0
fi
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $missing
