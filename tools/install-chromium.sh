#!/bin/sh
# Installs Chromium for the tests of pages, on Debian as root; elsewhere it says which tests skip. Never fails.
found() {
    [ -n "${VGB_CHROMIUM:-}" ] && return
    for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do
        command -v "$name" >/dev/null 2>&1 && return
    done
    return 1
}

if found; then exit 0; fi
if [ "$(id -u)" = 0 ] && [ -r /etc/debian_version ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing chromium for the tests of pages" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends chromium >/dev/null 2>&1 || {
        apt-get update -q >/dev/null 2>&1
        apt-get install -y -q --no-install-recommends chromium >/dev/null 2>&1
    }
fi
found || echo "no Chromium: the tests of pages skip (install chromium, or set VGB_CHROMIUM)" >&2
exit 0
