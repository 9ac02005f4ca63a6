#!/usr/bin/env bash
# Says which data set the quickstart takes, and gets it: Fashion-MNIST from this machine, from its
# home page or, without one, out of Debian's archive; digits where none of them can be had.
set -euo pipefail
PYTHON=${PYTHON:-python3}
PACKAGE=dataset-fashion-mnist

tell() { echo "quickstart: $*" >&2; }

is_here() {
    "$PYTHON" -c "import similitude as sim; sim.data.open_source('fashion-mnist')" >/dev/null 2>&1
}

# apt's own lists, else fresh ones; neither needs root, and nothing is installed.
download() {
    local here=$1
    local options=(-qq -o Acquire::http::Timeout=5 -o Acquire::Retries=0)
    [ "$(id -u)" = 0 ] && options+=(-o APT::Sandbox::User=root)
    (cd "$here" && apt-get "${options[@]}" download "$PACKAGE") 2>/dev/null && return
    mkdir -p "$here/lists/partial" "$here/cache/archives/partial"
    options+=(-o "Dir::State::lists=$here/lists" -o "Dir::Cache=$here/cache")
    options+=(-o APT::Update::Post-Invoke-Success= -o APT::Update::Post-Invoke=)
    (cd "$here" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "$PACKAGE") 2>/dev/null
}

from_debian() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    local folder cache
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' RETURN
    download "$folder" || return 1
    dpkg-deb -x "$folder/$PACKAGE"_*.deb "$folder/unpacked"
    cache=$("$PYTHON" -c "from similitude.data.cache import cache_folder; print(cache_folder())")
    mkdir -p "$cache/fashion-mnist"
    cp "$folder"/unpacked/usr/share/datasets/fashion-mnist/*.gz "$cache/fashion-mnist/"
}

if is_here; then
    echo fashion-mnist
    exit
fi
tell "Fashion-MNIST is not here and its home page does not answer: asking Debian's archive"
if from_debian && is_here; then
    tell "Fashion-MNIST is in the cache now, out of Debian's package $PACKAGE"
    echo fashion-mnist
else
    tell "Fashion-MNIST cannot be had: training on scikit-learn's digits, 1,797 images of 8 x 8"
    echo digits
fi
