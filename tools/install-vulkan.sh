#!/bin/sh
# Installs a software Vulkan driver (Mesa lavapipe) on Debian 12 as root; elsewhere it says what to install.
#
# SAPIEN renders on a CPU through Mesa >= 24; Debian 12 ships 22.3, which fails, and offers a newer one in its
# backports suite. The mirror is taken from this machine's own apt sources, so no host is written down here.
set -eu

advise() {
    cat >&2 <<TEXT
No working Vulkan driver, and it cannot be installed from here: $1
Install one, then run the same command again:
  - NVIDIA GPU: the vendor driver with its Vulkan ICD (package nvidia-vulkan-icd, or the driver's .run file)
  - Debian 12 without a GPU, as root: sh tools/install-vulkan.sh
  - Debian 13, Ubuntu 24.04 or newer: apt-get install mesa-vulkan-drivers libvulkan1
  - Fedora: dnf install mesa-vulkan-drivers vulkan-loader
  - anything else: Mesa >= 24 with lavapipe (VK_ICD_FILENAMES may point to lvp_icd.json) and libvulkan.so.1
TEXT
    exit 2
}

[ -r /etc/os-release ] || advise "this is not a Debian system"
. /etc/os-release
command -v apt-get >/dev/null 2>&1 || advise "this system has no apt-get"
[ "$(id -u)" = 0 ] || advise "this needs root"

suite=${VERSION_CODENAME:-}
target=""
if [ "${ID:-}" = debian ] && [ "$suite" = bookworm ]; then
    target="$suite-backports"
    if ! apt-cache policy 2>/dev/null | grep -q "a=$target\|n=$target"; then
        # deb822 files first, then one-line lists: the first source that serves the release suite itself.
        mirror=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk -v suite="$suite" '
            tolower($1) == "uris:" { uri = $2 }
            tolower($1) == "suites:" { for (i = 2; i <= NF; i++) if ($i == suite) hit = 1 }
            NF == 0 { if (hit && uri != "" && !done) { print uri; done = 1 } uri = ""; hit = 0 }
            END { if (hit && uri != "" && !done) print uri }')
        [ -n "$mirror" ] || mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
            sed 's/\[[^]]*\]//' | awk -v suite="$suite" '$1 == "deb" && $3 == suite { print $2; exit }')
        [ -n "$mirror" ] || advise "no apt source for $suite was found to take the mirror from"
        keyring=/usr/share/keyrings/debian-archive-keyring.gpg
        [ -r "$keyring" ] && signed="Signed-By: $keyring" || signed=""
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n%s\n' "$mirror" "$target" "$signed" \
            >/etc/apt/sources.list.d/vgb-backports.sources
    fi
fi

export DEBIAN_FRONTEND=noninteractive
echo "installing a software Vulkan driver (Mesa lavapipe)" >&2
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends ${target:+-t "$target"} mesa-vulkan-drivers libvulkan1 >&2
