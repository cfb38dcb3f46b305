#!/bin/sh
# Installs a software Vulkan driver (Mesa lavapipe) on Debian as root; elsewhere it says what to install, exit status 2.
#
# SAPIEN renders on a CPU through Mesa >= 24. Debian 12 ships 22.3, which fails, and offers a newer one in its backports
# suite. The mirror is taken from this machine's own apt sources, so no host is written down here.
# Also installed: libraries that OpenCV (for ManiSkill) and SAPIEN load and minimal systems lack.
#
#   sh tools/install-vulkan.sh              install
#   sh tools/install-vulkan.sh --advise WHY print what to install, and stop
#   VGB_ROOT=DIR                            read and write the system's files under DIR (for tests)
set -eu

root=${VGB_ROOT:-}
sources=$root/etc/apt/sources.list.d
ours=$sources/vgb-backports.sources
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages="mesa-vulkan-drivers libvulkan1 libx11-6 libgl1 libglib2.0-0"

advise() {
    cat >&2 <<TEXT
No working Vulkan driver, and it cannot be installed from here: $1
Install one, then run the same command again:
  - NVIDIA GPU: the vendor driver with its Vulkan ICD (package nvidia-vulkan-icd, or the driver's .run file)
  - Debian 12 without a GPU, as root: sh tools/install-vulkan.sh   (Mesa from bookworm-backports)
  - Debian 13, Ubuntu 24.04 or newer: apt-get install $packages
  - Fedora: dnf install mesa-vulkan-drivers vulkan-loader libX11 libglvnd-glx glib2
  - anything else: libvulkan.so.1 and Mesa >= 24 with lavapipe (VK_DRIVER_FILES may name its lvp_icd.json),
    libX11.so.6, libGL.so.1, libgthread-2.0.so.0
TEXT
    exit 2
}

# Prints "URI KEYRING" (KEYRING may be "-") of the first source that serves suite $1, component main.
# Debian's own files come first: other vendors' sources name the same suite.
source_of() {
    for file in "$sources/debian.sources" "$root/etc/apt/sources.list" "$sources"/*.sources "$sources"/*.list; do
        [ -r "$file" ] || continue
        case $file in
        *.sources) found=$(stanza_of "$1" "$file") ;;
        *) found=$(line_of "$1" "$file") ;;
        esac
        if [ -n "$found" ]; then
            echo "$found"
            return
        fi
    done
}

stanza_of() {  # deb822: fields in stanzas, separated by blank lines
    awk -v suite="$1" '
        function has(list, word,   parts, n, i) {
            n = split(list, parts, /[ \t]+/)
            for (i = 1; i <= n; i++) if (parts[i] == word) return 1
            return 0
        }
        function flush() {
            if (!done && uri != "" && has(suites, suite) && has(components, "main") && has(types, "deb") && !off) {
                print uri, (key ~ /^\// ? key : "-")
                done = 1
            }
            uri = suites = components = types = key = ""; off = 0
        }
        /^#/ { next }
        NF == 0 { flush(); next }
        { field = tolower($1); value = $0; sub(/^[^:]*:[ \t]*/, "", value) }
        field == "uris:" { uri = $2 }
        field == "suites:" { suites = value }
        field == "components:" { components = value }
        field == "types:" { types = value }
        field == "signed-by:" { key = $2 }
        field == "enabled:" && tolower($2) == "no" { off = 1 }
        END { flush() }' "$2"
}

line_of() {  # one line: deb [options] URI SUITE COMPONENT...
    awk -v suite="$1" '
        $1 != "deb" { next }
        {
            key = "-"
            if (match($0, /signed-by=\/[^] \t,]*/)) key = substr($0, RSTART + 10, RLENGTH - 10)
            gsub(/\[[^]]*\]/, "")
            if ($3 != suite) next
            for (i = 4; i <= NF; i++) if ($i == "main") { print $2, key; exit }
        }' "$2"
}

add_backports() {
    [ -z "$(source_of "$1-backports")" ] || return 0
    found=$(source_of "$1")
    [ -n "$found" ] || advise "no apt source for $1 was found to take the mirror from"
    key=${found#* }
    [ "$key" != - ] || key=$keyring
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "${found%% *}" "$1-backports"
        [ ! -r "$root$key" ] || printf 'Signed-By: %s\n' "$key"
    } >"$ours"
}

[ "${1:-}" != --advise ] || advise "${2:-it was asked for}"

ID="" VERSION_CODENAME=""
[ ! -r "$root/etc/os-release" ] || . "$root/etc/os-release"
[ "$ID" = debian ] || advise "this is not a Debian system"
command -v apt-get >/dev/null 2>&1 || advise "this system has no apt-get"
[ "$(id -u)" = 0 ] || advise "this needs root"

target=""
if [ "$VERSION_CODENAME" = bookworm ]; then
    add_backports bookworm
    target=bookworm-backports
fi

export DEBIAN_FRONTEND=noninteractive
echo "installing a software Vulkan driver (Mesa lavapipe) with apt-get" >&2
apt-get update -qq >&2 || advise "apt-get update failed; its message is above"
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends ${target:+-t "$target"} $packages >&2 ||
    advise "apt-get install failed; its message is above"
