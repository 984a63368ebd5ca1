#!/usr/bin/env bash
# Sets Crier up: for work in this folder (--local), or as a service of this machine. Running it again is harmless.
set -euo pipefail
umask 022

usage() {
    cat <<'TEXT'
usage: ./install.sh [OPTIONS]

  (none)       install the service: user crier, /opt/crier, /etc/crier, models, systemd units (as root)
  --local      set up .venv in this folder instead; no service, no root unless Debian packages are missing
  --dev        with --local: the tools of the tests too
  --wyoming    what the Wyoming server needs too; kept when it is run again without
  --uninstall  remove the service; /etc/crier, /var/lib/crier and the user stay
  --purge      with --uninstall: remove those too
  --dry-run    say what would be done, change nothing
  --help       this text

Environment:
  PYTHON       the interpreter to use (default: the first of python3.11, 3.12, 3.13, python3 that will do)
  CMAKE_ARGS   more flags for llama.cpp; a change rebuilds it
  DESTDIR      install the service into this folder: nothing is started, no user is made
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dest=${DESTDIR:+$(realpath -m -- "$DESTDIR")}
dest=${dest%/}
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/crier
mode=service extras='' dry='' purge='' changed='' python=''
scratch=() build_pid=''

say() { printf 'crier: %s\n' "$*"; }
die() {
    printf 'crier: %s\n' "$*" >&2
    exit 1
}
act() { # does it, or says what would be done
    if [[ $dry ]]; then printf 'would: %s\n' "$*"; else "$@"; fi
}
run() { # the same for what makes this run more than a look whether all is up to date
    changed=1
    act "$@"
}
cleanup() {
    if [[ $build_pid ]]; then kill -- "-$build_pid" 2>/dev/null || true; fi
    rm -rf "${scratch[@]}"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

parse_arguments() {
    while (($#)); do
        case $1 in
            --local) mode=local ;;
            --dev) extras=dev ;;
            --wyoming) extras=${extras:-wyoming} ;;
            --uninstall) mode=uninstall ;;
            --purge) purge=1 ;;
            --dry-run) dry=1 ;;
            -h | --help) usage && exit 0 ;;
            *) usage >&2 && exit 2 ;;
        esac
        shift
    done
    if [[ $extras == dev && $mode != local ]] || [[ $extras && $mode == uninstall ]] || [[ $purge && $mode != uninstall ]]; then
        usage >&2 && exit 2
    fi
}

# --- Debian packages ------------------------------------------------------------------------------------------------

as_root() { # never asks for a password where nobody can answer
    if ((EUID == 0)); then
        "$@"
    elif [[ -t 0 && -z ${CI:-} ]]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${Status}' "$name" 2>/dev/null) == *' installed' ]] || printf '%s\n' "$name"
    done
}

# --no-remove: on a desktop, pulseaudio would otherwise throw out PipeWire's sound.
apt_install() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
    local install=("${apt[@]}" install --no-install-recommends --no-remove "$@")
    if [[ $dry ]]; then run "${install[@]}" && return; fi
    as_root true 2>/dev/null || return 1
    as_root "${install[@]}" >/dev/null 2>&1 || { as_root "${apt[@]}" update && as_root "${install[@]}" >/dev/null; }
}

# Installs what is missing; false if that cannot be done.
need_packages() {
    local missing
    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian system: the equivalents of these are taken to be there: $*"
        return 0
    fi
    mapfile -t missing < <(missing_packages "$@")
    if ((${#missing[@]} == 0)); then return 0; fi
    say "Debian packages: ${missing[*]}"
    changed=1
    if apt_install "${missing[@]}"; then return 0; fi
    say "cannot install them here; as root: apt-get install ${missing[*]}" >&2
    return 1
}

# The tests start their own broker: Debian's service for it is kept from starting, now and at boot.
need_test_packages() {
    local keep_off=''
    if [[ -d /run/systemd/system && $(missing_packages mosquitto) && ! $dry ]]; then
        if as_root systemctl mask --runtime mosquitto.service >/dev/null 2>&1; then keep_off=1; fi
    fi
    need_packages mosquitto mosquitto-clients pulseaudio pulseaudio-utils libasound2-plugins flite wordnet-base wamerican openssl \
        snapserver snapclient ||
        say "tests that need the missing ones are skipped"
    if [[ $keep_off ]]; then
        as_root systemctl unmask --runtime mosquitto.service >/dev/null 2>&1 || true
        as_root systemctl disable mosquitto.service >/dev/null 2>&1 || true
    fi
}

# --- Python ---------------------------------------------------------------------------------------------------------

is_usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.maxsize <= 2**32)' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
# A Python in somebody's home folder (pyenv) is out of the service's reach.
is_reachable() {
    [[ $mode != service || $dest ]] && return
    [[ $("$1" -c 'import os, sys; print(os.path.realpath(sys.executable))') != @(/root|/home)/* ]]
}
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# Sets `python`: one that has the venv module if there is one.
find_python() {
    local candidate candidates=(python3.11 python3.12 python3.13 python3 /usr/bin/python3)
    if [[ ${PYTHON:-} ]]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if ! is_usable "$candidate" || ! is_reachable "$candidate"; then continue; fi
        if has_venv "$candidate"; then python=$candidate && return; fi
        python=${python:-$candidate}
    done
}

need_python() {
    find_python
    if [[ ! $python ]]; then
        if [[ ${PYTHON:-} ]]; then
            is_reachable "$PYTHON" || die "PYTHON=$PYTHON is in a home folder, which the service cannot see"
            die "PYTHON=$PYTHON is not a 64-bit Python 3.11 or newer"
        fi
        if python3 -c 'import sys; sys.exit(sys.maxsize > 2**32)' 2>/dev/null; then
            die "this system's Python is 32-bit; Crier needs a 64-bit system (Raspberry Pi OS 64-bit)"
        fi
        need_packages python3 python3-venv python3-dev || true
        find_python
        if [[ ! $python && ! $dry ]]; then die "needs Python 3.11 or newer, 64-bit (set PYTHON to its path)"; fi
        python=${python:-python3}
    fi
    local name packages=()
    name=python$(version_of "$python" || echo 3)
    has_venv "$python" || packages+=("$name-venv")
    "$python" -c 'import sys, sysconfig, os.path as p; sys.exit(not p.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        packages+=("$name-dev")
    if ((${#packages[@]} == 0)); then return 0; fi
    need_packages "${packages[@]}" || die "$python cannot make a virtual environment or build extensions without them"
}

# --- llama-cpp-python, built for this CPU ---------------------------------------------------------------------------

llama_version() { sed -n 's/^ *"llama-cpp-python==\([^"]*\)".*/\1/p' "$here/pyproject.toml"; }

# LLAVA_BUILD and the tools' common library are two thirds of the work and nothing Crier calls.
llama_cmake_args() { printf '%s' "-DLLAVA_BUILD=OFF -DGGML_NATIVE=ON ${CMAKE_ARGS:-}"; }

# Read by CMake at llama.cpp's own project(). On x86 llama.cpp turns the float16 scale of every block into float32 with a
# table of 256 KB, which it has to fetch from beyond the first cache; the processor's own instruction gives the same bits
# and made steps over Q8_0 weights a fifth to a third faster (docs/performance.md).
llama_cmake_include() {
    echo 'set(LLAMA_BUILD_COMMON OFF)'
    if grep -qwm 1 f16c /proc/cpuinfo; then
        echo 'add_compile_definitions(GGML_CPU_FP16_TO_FP32=GGML_CPU_COMPUTE_FP16_TO_FP32)'
    fi
}

# What a build depends on; pip's own wheel cache knows neither the flags nor the CPU.
llama_key() {
    {
        llama_version
        llama_cmake_args
        llama_cmake_include
        printf '\n%s|%s|%s|%s\n' "${CC:-}" "${CXX:-}" "${CFLAGS:-}" "${CXXFLAGS:-}"
        "${CXX:-c++}" --version 2>/dev/null | head -n 1 || true
        "$python" -c 'import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())' || true
        grep -E '^(flags|Features|model name|CPU (implementer|part))' /proc/cpuinfo | sort -u
    } | sha256sum | cut -c 1-16
}

build_jobs() { # a compiler can take 1.5 GiB
    awk -v cores="$(nproc)" '/^MemTotal/ {n = int($2 / 1572864); print n < 1 ? 1 : (n > cores ? cores : n)}' /proc/meminfo
}

# Prints the path of the wheel in the cache, if it is there.
llama_wheel() { find "$cache/wheels/$(llama_key)" -name '*.whl' -print -quit 2>/dev/null || true; }

wait_for_build() { # log
    local ticks=0
    while kill -0 "$build_pid" 2>/dev/null; do
        sleep 1
        if ((++ticks % 15 == 0)); then
            say "  ${ticks} s, step $(grep -oE '^ *\[[0-9]+/[0-9]+\]' "$1" | tail -n 1 | tr -d ' []' | sed 's,/, of ,')"
        fi
    done
    wait "$build_pid"
}

# Builds with the pip of the environment $1.
build_llama() {
    local log=$cache/llama-build.log jobs folder build
    jobs=$(build_jobs)
    folder=$cache/wheels/$(llama_key)
    say "llama-cpp-python $(llama_version): building for this CPU, once, $jobs at a time (1.5 minutes on two PC cores, several on a small board)"
    if [[ $dry ]]; then return; fi
    mkdir -p "$cache/wheels"
    build=$(mktemp -d "$cache/build.XXXXXX")
    scratch+=("$build")
    llama_cmake_include >"$build/crier.cmake"
    set -m # a process group of its own, so that an interrupt takes the compilers along
    TMPDIR=$build CMAKE_BUILD_PARALLEL_LEVEL=$jobs \
        CMAKE_ARGS="$(llama_cmake_args) '-DCMAKE_PROJECT_llama_cpp_INCLUDE=$build/crier.cmake'" \
        "$1/bin/python" -m pip wheel -v --no-deps --no-cache-dir --no-binary llama-cpp-python -w "$build/wheel" \
        "llama-cpp-python==$(llama_version)" </dev/null >"$log" 2>&1 &
    build_pid=$!
    set +m
    if ! wait_for_build "$log"; then
        build_pid=''
        tail -n 15 "$log" >&2
        die "building llama-cpp-python failed; the whole log is $log"
    fi
    build_pid=''
    rm -rf "$folder"
    mv "$build/wheel" "$folder"
    rm -rf "$build" "$log"
}

# --- the virtual environment ----------------------------------------------------------------------------------------

# What an environment depends on; kept in it, and compared before anything is done.
stamp() { # path of the environment
    printf 'path %s\npython %s\nllama %s\n' "$1" "$(version_of "$python" || true)" "$(llama_key)"
    printf 'project %s\nextras %s\n' "$(cat "$here/pyproject.toml" "$here/constraints.txt" | sha256sum | cut -c 1-16)" "$extras"
}

# What was asked for once is kept; dev holds all the others.
keep_extras() { # path of the environment
    local before
    before=$(sed -n 's/^extras //p' "$1/.crier-stamp" 2>/dev/null) || true
    if [[ $extras != dev && $before ]]; then extras=$before; fi
}

is_current() { [[ -x $1/bin/python && $(cat "$1/.crier-stamp" 2>/dev/null) == "$(stamp "$1")" ]]; }

# Makes or updates an environment with everything Crier needs; `pip install` gets the rest of the arguments.
setup_venv() {
    local venv=$1 pip=("$1/bin/python" -m pip --disable-pip-version-check)
    shift
    if ! is_usable "$venv/bin/python" || [[ $(head -n 2 "$venv/.crier-stamp" 2>/dev/null) != "$(stamp "$venv" | head -n 2)" ]]; then
        say "virtual environment $venv, Python $(version_of "$python" || true)"
        run "$python" -m venv --clear --prompt crier "$venv"
    fi
    run rm -f "$venv/.crier-stamp"
    if [[ ! $(llama_wheel) ]]; then build_llama "$venv"; fi
    run "${pip[@]}" install -qq -c "$here/constraints.txt" --force-reinstall --no-deps "$(llama_wheel)"
    say "Python packages$([[ $extras != dev ]] || echo ' and the test tools (PyTorch among them: 0.2 GB, or 3 GB where only the CUDA build is offered)')"
    run "${pip[@]}" install -qq --no-warn-conflicts -c "$here/constraints.txt" "$@"
    if [[ $extras == dev ]]; then # for its health check, which uses nothing of what the rest of it depends on
        run "${pip[@]}" install -qq -c "$here/constraints.txt" --no-deps wyoming-piper
    fi
}

# --- in this folder -------------------------------------------------------------------------------------------------

install_local() {
    local venv=$here/.venv
    keep_extras "$venv"
    if [[ ! ${PYTHON:-} ]] && is_usable "$venv/bin/python"; then PYTHON=$(readlink -f "$venv/bin/python"); fi
    need_python
    if ! need_packages g++ portaudio19-dev libsonic0; then
        if ! is_current "$venv"; then exit 1; fi
    fi
    if [[ $extras == dev ]]; then need_test_packages; fi
    if is_current "$venv"; then
        say "$venv is up to date"
        return
    fi
    setup_venv "$venv" -e "$here${extras:+[$extras]}"
    if [[ ! $dry ]]; then stamp "$venv" >"$venv/.crier-stamp"; fi
}

# --- the service ----------------------------------------------------------------------------------------------------

# Not /etc: what is there is the administrator's (systemctl edit --full), goes before these, and is never touched.
lib=/usr/local/lib
unit_files=(
    "systemd/crier.service $lib/systemd/system/crier.service"
    "systemd/crier.socket $lib/systemd/system/crier.socket" # not enabled: the service makes its own socket
    "systemd/user/crier.service $lib/systemd/user/crier.service"
    "systemd/sysusers.d/crier.conf $lib/sysusers.d/crier.conf"
    "systemd/tmpfiles.d/crier.conf $lib/tmpfiles.d/crier.conf"
)

on_this_machine() { [[ ! $dest ]]; }
has_systemd() { on_this_machine && [[ -d /run/systemd/system ]]; }
must_be_root() {
    if on_this_machine && ((EUID != 0)) && [[ ! $dry ]]; then die "the service needs root: sudo ./install.sh${1:+ $1}"; fi
}

install_file() { # source target; says nothing when there is nothing to do
    if ! cmp -s "$1" "$2"; then run install -D -m 644 "$1" "$2"; fi
}

install_units() {
    local pair
    for pair in "${unit_files[@]}"; do install_file "$here/${pair% *}" "$dest${pair#* }"; done
}

make_user() {
    if ! on_this_machine || id crier >/dev/null 2>&1; then return; fi
    say "system user crier in group audio"
    if command -v systemd-sysusers >/dev/null; then
        run systemd-sysusers crier.conf
    else
        run useradd --system --user-group --groups audio --home-dir /var/lib/crier --no-create-home \
            --shell /usr/sbin/nologin crier
    fi
}

make_folders() { # they belong to the service
    local folder owner=()
    if on_this_machine; then owner=(-o crier -g crier); fi
    for folder in /var/lib/crier /var/lib/crier/models /var/cache/crier; do
        if [[ ! -d $dest$folder ]]; then run install -d -m 755 "${owner[@]}" "$dest$folder"; fi
    done
    if has_systemd && [[ ! -d /run/crier ]]; then run systemd-tmpfiles --create crier.conf; fi
}

install_config() {
    local target=$dest/etc/crier/config.toml
    if [[ ! -e $target ]]; then
        run install -D -m 644 "$here/config.toml" "$target"
    elif cmp -s "$here/config.toml" "$target"; then
        if [[ -e $target.new ]]; then act rm "$target.new"; fi
    elif ! cmp -s "$here/config.toml" "$target.new"; then
        say "$target is kept; this version's defaults are in config.toml.new"
        act install -m 644 "$here/config.toml" "$target.new"
    fi
}

replace_folder() { # target, what takes its place
    run rm -rf "$1.old"
    if [[ -e $1 ]]; then run mv -T "$1" "$1.old"; fi
    run mv -T "$2" "$1"
    run rm -rf "$1.old"
}

# The manifest holds the hashes of all other files: the same manifest is the same bundle.
install_model() {
    local source=$here/models/starter target=$dest/var/lib/crier/models/starter
    [[ -e $source/manifest.toml ]] || die "$source is missing: an incomplete checkout"
    if cmp -s "$source/manifest.toml" "$target/manifest.toml"; then return; fi
    run rm -rf "$target.part"
    run cp -r "$source" "$target.part"
    run chmod -R u=rwX,go=rX "$target.part" # the service reads it, whatever the umask of the checkout was
    replace_folder "$target" "$target.part"
}

source_hash() {
    (cd "$here" && find daemon quantize training -name '*.py' -print0 | sort -z | xargs -0 cat | sha256sum | cut -c 1-16)
}

# A wheel from a copy, so that nothing of root's is left in the checkout. Other dependencies or another Python make a new
# environment, which takes the old one's place when it is complete: until then the service keeps what it runs from.
install_program() {
    local venv=$dest/opt/crier source new
    keep_extras "$venv"
    if is_current "$venv" && [[ $(cat "$venv/.crier-source" 2>/dev/null) == "$(source_hash)" ]]; then return; fi
    source=$(mktemp -d)
    scratch+=("$source")
    act cp -r "$here"/{pyproject.toml,README.md,LICENSE,daemon,quantize,training} "$source"
    if is_current "$venv"; then
        say "program"
        run "$venv/bin/python" -m pip --disable-pip-version-check install -qq --no-deps --force-reinstall "$source"
        finish_program "$venv"
        return
    fi
    new=$venv.new
    run rm -rf "$new"
    setup_venv "$new" "$source${extras:+[$extras]}"
    if [[ -e $venv/.crier-started ]]; then act cp "$venv/.crier-started" "$new"; fi
    finish_program "$new"
    replace_folder "$venv" "$new"
}

# The scripts of an environment name its path: the one it will have.
finish_program() {
    if [[ $dry ]]; then return; fi
    grep -rlIZF "$1" "$1/bin" "$1/pyvenv.cfg" | xargs -0 sed -i "s|$1|/opt/crier|g"
    source_hash >"$1/.crier-source"
    stamp "$dest/opt/crier" >"$1/.crier-stamp"
}

link_command() {
    if [[ $(readlink "$dest/usr/local/bin/$1") != "/opt/crier/bin/$1" ]]; then
        run mkdir -p "$dest/usr/local/bin"
        run ln -sfn "/opt/crier/bin/$1" "$dest/usr/local/bin/$1"
    fi
}

# What the service runs from.
service_key() {
    { stamp /opt/crier && source_hash && cat "$here"/{systemd/crier.service,models/starter/manifest.toml}; } |
        sha256sum | cut -c 1-16
}

# The environment keeps the key of the last start: none, and the installation is new or was interrupted; another one, and
# a restart is due. A service that was disabled after its first start is left alone.
start_service() {
    local started=/opt/crier/.crier-started key
    if ! has_systemd; then
        say "systemd does not run here: nothing is started"
        return
    fi
    key=$(service_key)
    if [[ ! -e $started || $(systemctl show --property=NeedDaemonReload crier.service crier.socket) == *=yes* ]]; then
        run systemctl daemon-reload
    fi
    if [[ ! -e $started ]]; then
        run systemctl enable --quiet crier.service
    elif ! systemctl is-enabled --quiet crier.service && ! systemctl is-active --quiet crier.service; then
        say "crier.service is disabled, and stays so"
        return
    fi
    if [[ $(cat "$started" 2>/dev/null) != "$key" ]]; then
        run systemctl restart crier.service
        if [[ ! $dry ]]; then echo "$key" >"$started"; fi
    elif ! systemctl is-active --quiet crier.service; then
        run systemctl start crier.service
    fi
}

install_service() {
    must_be_root
    if on_this_machine; then need_packages g++ portaudio19-dev libsonic0 || exit 1; fi
    need_python
    install_program
    install_units
    make_user
    make_folders
    install_config
    install_model
    link_command crier
    link_command crierd
    start_service
    if [[ ! $dry ]]; then say "$([[ $changed ]] && echo installed || echo 'up to date'); the configuration is $dest/etc/crier/config.toml"; fi
}

uninstall_service() {
    local pair folder
    must_be_root --uninstall
    if has_systemd; then
        run systemctl disable --now --quiet crier.service crier.socket 2>/dev/null || true
    fi
    for pair in "${unit_files[@]}"; do run rm -f "$dest${pair#* }"; done
    run rm -f "$dest/usr/local/bin/crier" "$dest/usr/local/bin/crierd"
    for folder in systemd/user systemd/system systemd sysusers.d tmpfiles.d; do
        if [[ -d $dest$lib/$folder ]]; then run rmdir --ignore-fail-on-non-empty "$dest$lib/$folder"; fi
    done
    run rm -rf "$dest"/opt/crier{,.new,.old} "$dest"/var/lib/crier/models/starter{,.part,.old} "$dest/run/crier"
    if has_systemd; then run systemctl daemon-reload; fi
    if [[ $purge ]]; then
        run rm -rf "$dest/etc/crier" "$dest/var/lib/crier" "$dest/var/cache/crier"
        if on_this_machine && id crier >/dev/null 2>&1; then run userdel crier; fi
    fi
    if [[ ! $dry ]]; then say "removed$([[ $purge ]] || echo "; the configuration and /var/lib/crier are kept (--purge removes them)")"; fi
}

parse_arguments "$@"
case $mode in
    local) install_local ;;
    service) install_service ;;
    uninstall) uninstall_service ;;
esac
