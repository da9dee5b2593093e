# Runs inside the container; `deepfake-fpga session` puts these lines before it:
#   session_folder     folder of this file; takes the file "status"
#   session_release    release of Vitis AI
#   session_python     conda or system
#   session_card       yes, or empty for a session without a card
#   session_argument   argument of the release's setup.sh, may be empty
#   session_xclbins    folder of the variant's xclbin
#   session_wheels     folder of wheels to install from, may be empty
#   session_display    DISPLAY, which some start scripts drop; may be empty
#   session_command    words to run, quoted for the shell; empty for a shell
# No -e and no -u: the vendor's scripts and conda work with neither.

session_started=
session_log=/dev/null
exec 9>&2 # what is said must be seen even while a script's output goes to a file

session_say() { echo "deepfake-fpga session: $*" >&9; }

session_fail() {
    session_say "error: $*"
    exit 1
}

# The image's own start script may lose the status, so it is left in a file as well.
session_finish() {
    session_status=$?
    if [ -z "$session_started" ] && [ "$session_status" -eq 0 ]; then
        cat "$session_log" >&9
        session_say "error: a set-up script ended the session before the command was started"
        session_status=1
    fi
    (echo "$session_status" >"$session_folder/status") 2>/dev/null
    [ -z "$session_tools" ] || rm -rf "$session_tools"
    exit "$session_status"
}
trap session_finish EXIT

session_conda() {
    session_file=/opt/vitis_ai/conda/etc/profile.d/conda.sh
    [ -f "$session_file" ] ||
        session_fail "there is no $session_file: this is no Vitis AI image (deepfake-fpga session --image NAME)"
    . "$session_file"
    conda activate vitis-ai-pytorch ||
        session_fail "the conda environment vitis-ai-pytorch cannot be activated (conda env list shows what the image has)"
}

# A session's own `deepfake-fpga`: the package is mounted, not installed.
session_install() {
    session_exe=$(command -v "$1") || session_fail "the image has no $1"
    mkdir -p "$session_tools/bin" "$session_tools/site"
    {
        echo "#!$session_exe"
        echo 'import sys'
        echo 'if sys.version_info < (3, 7):'
        echo '    sys.exit("deepfake-fpga needs Python 3.7, this image has %d.%d: use the vendor'"'"'s own tools here" % sys.version_info[:2])'
        echo 'from deepfake_fpga.deploy.cli import main'
        echo 'main()'
    } >"$session_tools/bin/deepfake-fpga"
    chmod +x "$session_tools/bin/deepfake-fpga"
    export PATH="$session_tools/bin:$PATH"
    if [ -n "$session_wheels" ]; then
        session_unpack
    fi
    export PYTHONPATH="/opt/deepfake_fpga:$session_tools/site${PYTHONPATH:+:$PYTHONPATH}"
    "$session_exe" -c 'import sys; sys.exit(sys.version_info < (3, 7))' || {
        session_say "this image's Python is older than 3.7: deepfake-fpga itself does not run in it, the vendor's tools do"
        return
    }
    session_missing=$("$session_exe" - click yaml numpy <<'END'
import importlib, sys
missing = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        missing.append(name)
print(" ".join(missing))
END
    )
    [ -z "$session_missing" ] ||
        session_say "warning: this Python lacks $session_missing, which deepfake-fpga needs. On a computer with a network: $session_download; then: deepfake-fpga session --wheels wheels"
}

# Wheels of what this Python has already are left out: an image's own numpy fits its torch.
session_unpack() {
    "$session_exe" -m pip --disable-pip-version-check list --format=freeze >"$session_tools/have" 2>/dev/null
    session_list=()
    for session_file in "$session_wheels"/*.whl; do
        [ -f "$session_file" ] || session_fail "there is no wheel in the folder given with --wheels. Next: $session_download"
        session_name=$(basename "$session_file" | sed 's/-.*//; s/[-_.]\{1,\}/-/g' | tr '[:upper:]' '[:lower:]')
        if ! sed 's/[=@ ].*//; s/[-_.]\{1,\}/-/g' "$session_tools/have" | tr '[:upper:]' '[:lower:]' | grep -qx "$session_name"; then
            session_list+=("$session_file")
        fi
    done
    [ ${#session_list[@]} -gt 0 ] || return 0
    PIP_ROOT_USER_ACTION=ignore "$session_exe" -m pip --disable-pip-version-check install --quiet --no-index --no-deps \
        --find-links "$session_wheels" --target "$session_tools/site" "${session_list[@]}" >&2 ||
        session_fail "the wheels cannot be installed (they must be for this image's Python). Next: $session_download"
}

session_use_card() {
    unset XCLBIN_PATH XLNX_VART_FIRMWARE # a failed set-up would leave old values standing
    session_log=$session_tools/setup.log
    session_setup=
    for session_file in /vitis_ai_home/board_setup/vck5000/setup.sh /vitis_ai_home/setup/vck5000/setup.sh \
        /workspace/board_setup/vck5000/setup.sh /workspace/setup/vck5000/setup.sh; do
        if [ -f "$session_file" ]; then
            session_setup=$session_file
            break
        fi
    done
    if [ -n "$session_setup" ]; then
        session_say "sourcing $session_setup${session_argument:+ $session_argument}"
        . "$session_setup" ${session_argument:+"$session_argument"} >"$session_log" 2>&1
    else
        session_say "there is no setup.sh of a Vitis-AI folder (--vitis-ai): XRT and XRM are set up without it"
        for session_file in /opt/xilinx/xrt/setup.sh /opt/xilinx/xrm/setup.sh; do
            if [ -f "$session_file" ]; then
                . "$session_file" >>"$session_log" 2>&1
            else
                session_say "warning: the image has no $session_file"
            fi
        done
        session_list=("$session_xclbins"/*.xclbin)
        [ -f "${session_list[0]}" ] || session_fail "there is no xclbin in $session_xclbins. $session_xclbins_next"
        [ ${#session_list[@]} -eq 1 ] ||
            session_fail "$session_xclbins has several xclbins (${session_list[*]}): name the Vitis-AI folder of release $session_release with --vitis-ai, its setup.sh chooses"
        export XCLBIN_PATH=$session_xclbins XLNX_VART_FIRMWARE=${session_list[0]}
        session_say "XLNX_VART_FIRMWARE=$XLNX_VART_FIRMWARE: the only xclbin of the variant"
    fi
    set +eu # whatever the scripts left set
    # setup.sh ends with status 0 whatever happened; the file it names is the only proof.
    if [ ! -f "$XLNX_VART_FIRMWARE" ]; then
        cat "$session_log" >&2
        if grep -q "Can't find the supported" "$session_log"; then
            session_fail "setup.sh found no card: xbutil in the container does not see it. Next, on the host: deepfake-fpga doctor --for card"
        elif grep -q "Invalid argument" "$session_log"; then
            session_fail "setup.sh does not know '$session_argument': is $session_setup of release $session_release?"
        elif [ -n "$XLNX_VART_FIRMWARE" ]; then
            session_fail "setup.sh names $XLNX_VART_FIRMWARE, which is not there (in $session_xclbins: $(ls "$session_xclbins" 2>/dev/null | tr '\n' ' ')). $session_xclbins_next"
        fi
        session_fail "setup.sh left XLNX_VART_FIRMWARE empty and ended as if all were well; what it said stands above"
    fi
    case $XLNX_VART_FIRMWARE in
        "$session_xclbins"/*) ;;
        *) session_say "warning: $XLNX_VART_FIRMWARE is not in $session_xclbins, the folder of the variant asked for" ;;
    esac
}

session_tools=$(mktemp -d) || session_fail "no temporary folder can be made in the container"
session_interpreter=python3
if [ "$session_python" = conda ]; then
    session_conda
    session_interpreter=python
fi
session_install "$session_interpreter"
if [ -n "$session_card" ]; then
    session_use_card
fi
if [ -n "$session_display" ]; then
    export DISPLAY=$session_display
    [ ! -r /tmp/.Xauthority ] || export XAUTHORITY=/tmp/.Xauthority
fi
export VERSION="${VERSION:-$session_release}"
cd /workspace || session_fail "there is no /workspace"
session_started=yes
if [ -n "$session_command" ]; then
    exec 9>&-
    eval "$session_command"
    exit $?
fi
# The image's .bashrc would set PATH and PYTHONPATH back.
{
    echo '[ ! -f /opt/vitis_ai/conda/etc/profile.d/conda.sh ] || . /opt/vitis_ai/conda/etc/profile.d/conda.sh'
    echo "PS1='(Vitis AI $session_release) \\w\\\$ '"
} >"$session_tools/rc"
exec 9>&-
bash --rcfile "$session_tools/rc"
