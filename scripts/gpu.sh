#!/usr/bin/env bash
# Checks and measures the CUDA runtime on this machine's GPU, with the programs that scripts/pack-gpu.sh has packed, and ends with a
# short table. Each part is limited in time and leaves its log in the output folder.
#   gpu.sh [--dry-run] [--gpu N] [--out DIR] [--work DIR] PART..
#       doctor       what of CUDA is found
#       kernels      every kernel against NumPy in f64, and its speed
#       goldens      goldens, the trained example, low precision, shared rows, replicas
#       memcheck     compute-sanitizer memcheck on a golden
#       racecheck    compute-sanitizer racecheck on a golden
#       ort          ONNX Runtime on CUDA, its library named by PHOTONC_ORT_LIB: goldens in f32 and f16, paper-600m beside `cuda`;
#                    without the library it says so and is skipped
#       first        first token of paper-600m in bf16: without and with compiled kernels
#       prompts      4 096 prompts of a file, 16 to 900 tokens each, 128 new ones: tokens/s on one GPU and, where there are two, on both
#       workers      where there are two GPUs, tokens/s of one server and of two, by themselves and behind Shepherd Model Gateway
#                    (packed by `pack-gpu.sh --gateway`), and of one server with both GPUs
#       invariant    what --batch-invariant costs, and whether 64 prompts have the same texts together and alone with it
#       lengths      first token behind prompts of 2 047, 2 048 and 2 049 tokens, the first and last of which end in a meta-context
#       peer         photonc, twice, against peer_bench.py in this run: batch 1 (k 1, 8), 8 (k 8), 64 (k 4), 2048 (k 1)
#       steps        a coarse step of one row by itself and the prefill of 32 prompts of 2048 tokens, twice
#       codes        weights in int8, fp8 and int4 beside bf16: tokens/s of batch 1 (k 1, 8) and 8 (k 8), a coarse step by itself;
#                    how far weights are off, and logits of paper-30m
#       profile      time of every kernel by Nsight Compute, batch 1 and 2048 (profile:64 is one of another batch)
#       paper        PF and DE of 600M, 900M and 1.2B, RecGen and HierGen; paper:600m:recgen:pf is one of them
#       curve        tokens/s over the batch, with a plot
#       stress       random requests for PHOTONC_STRESS_SECONDS (480), a third of them in f32 with 128 rows, the rest in bf16
#                    with 512: memory stays, rows stay right (stress:f32 and stress:bf16 are one of them)
#       all          all of these in this order
# Exits with 1 where a part failed. --dry-run prints the commands instead.
set -uo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
pack="$root/.carry/gpu"
gpu=0
out="$PWD/gpu-results"
work="${TMPDIR:-/tmp}/photonc-gpu"
dry=""
parts=()
while (($#)); do
    case "$1" in
    --dry-run) dry=yes ;;
    --gpu) gpu="${2:?--gpu needs a number}" && shift ;;
    --out) out="${2:?--out needs a folder}" && shift ;;
    --work) work="${2:?--work needs a folder}" && shift ;;
    -*)
        echo "unknown option $1; see the top of gpu.sh" >&2
        exit 2
        ;;
    *) parts+=("$1") ;;
    esac
    shift
done
every=(doctor kernels goldens memcheck racecheck ort first prompts workers invariant lengths peer steps codes profile paper curve stress)
if ((${#parts[@]} == 0)); then
    echo "name parts: ${every[*]} all" >&2
    exit 2
fi
if [[ " ${parts[*]} " == *" all "* ]]; then
    parts=("${every[@]}")
fi

photonc="$work/bin/photonc"
tests="$work/bin/cuda-tests"
ort_tests="$work/bin/ort-tests"
stress_seconds="${PHOTONC_STRESS_SECONDS:-480}"
failed=0
table=()
made=""

# Runs a command with a limit in seconds; its output goes to a log, its time and its end to the table.
step() {
    local name="$1" limit="$2"
    shift 2
    if [[ -n "$dry" ]]; then
        echo "[$name, at most $limit s] $*"
        return 0
    fi
    local log="$out/$name.log" began=$EPOCHREALTIME code=0
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 || code=$?
    local seconds
    seconds="$(python3 -c "print(f'{$EPOCHREALTIME - $began:.1f}')")"
    local end=ok
    if ((code == 124 || code == 137)); then end="over $limit s"; elif ((code)); then end="exit $code"; fi
    if ((code)); then
        failed=1
        tail -n 15 "$log" | sed "s/^/$name: /"
    fi
    table+=("$(printf '%-28s %-12s %8s s' "$name" "$end" "$seconds")")
    echo "${table[-1]}"
    return "$code"
}

# Adds a line of a result to the table: a Python expression over the JSON documents in a log.
told() {
    local name="$1" log="$2" expression="$3"
    [[ -n "$dry" ]] && return 0
    local words
    words="$(python3 - "$log" "$expression" 2>&1 <<'PY'
import json, sys
text = open(sys.argv[1]).read()
documents, at, decoder = [], 0, json.JSONDecoder()
while (at := text.find("{", at)) >= 0:
    try:
        value, end = decoder.raw_decode(text, at)
    except ValueError:
        at += 1
        continue
    documents.append(value)
    at = end
print(eval(sys.argv[2], {"d": documents}))
PY
    )" || words="no figure: $(tail -n 1 <<<"$words")"
    table+=("$(printf '  %-26s %s' "$name" "$words")")
}

unpack() {
    mkdir -p "$out" "$work/bin"
    local packed name
    for packed in "$pack"/bin/*.gz; do
        [[ -f "$packed" ]] || continue
        name="$work/bin/$(basename "$packed" .gz)"
        gzip -dc "$packed" >"$name" && chmod +x "$name" || exit 1
    done
    if [[ -f "$pack/gateway.tar.xz" ]]; then
        python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2], filter="data")' "$pack/gateway.tar.xz" "$work" &&
            mv -f "$work/gateway/photonc" "$photonc" || exit 1
    fi
}

# A bundle of a preset with random weights in bf16, made once: bundle NAME.
bundle() {
    local preset="paper-$1"
    if [[ -n "$dry" ]]; then
        [[ " $made " == *" $1 "* ]] && return
        made+=" $1"
    fi
    if [[ -n "$dry" || ! -f "$work/$preset/photon.json" ]]; then
        step "synth-$1" 120 "$photonc" synth --preset "$preset" --dtype bf16 --out "$work/$preset-model" --force &&
            step "export-$1" 180 "$photonc" export "$work/$preset-model" --out "$work/$preset" --dtype bf16 --target tensorrt --max-tokens 4096 --force &&
            { [[ -n "$dry" ]] || rm -rf "$work/$preset-model"; }
    fi
}

bench() {
    local name="$1" limit="$2"
    shift 2
    step "$name" "$limit" "$photonc" bench "$@" --backend cuda --devices "$gpu" --json
}


ort_on_cuda=(--backend ort --provider cuda --device "$gpu")

ort_goldens() {
    step ort-goldens 150 env PHOTONC_ORT_PROVIDER=cuda PHOTONC_GPU="$gpu" CARGO_MANIFEST_DIR="$root" "$ort_tests" --exact \
        every_golden_result_is_reproduced the_tokens_of_the_reference_are_drawn scores_match_the_teacher_forced_forward \
        every_graph_holds_against_the_reference products_with_int8_weights_compute_in_f32 --test-threads 1
    local name dtype bundle
    for name in paper lopsided photon-experiment; do
        for dtype in f32 f16; do
            bundle="$work/ort-$name-$dtype"
            step "ort-export-$name-$dtype" 30 "$photonc" export "$root/tests/golden/$name" --out "$bundle" --dtype "$dtype" --force &&
                step "ort-verify-$name-$dtype" 60 "$photonc" verify "$bundle" "${ort_on_cuda[@]}"
        done
    done
}

# The same weights in f16 and f32, beside backend `cuda`.
ort_paper() {
    local model="$work/ort-600m-model" dtype bundle prompt name
    prompt="$(seq -s , 1 128)"
    step ort-synth 60 "$photonc" synth --preset paper-600m --dtype f16 --out "$model" --force || return
    for dtype in f16 f32; do
        bundle="$work/ort-600m-$dtype"
        step "ort-export-600m-$dtype" 90 "$photonc" export "$model" --out "$bundle" --dtype "$dtype" --max-tokens 2048 --force || continue
        for name in ort cuda; do
            local on=("${ort_on_cuda[@]}")
            [[ "$name" == cuda ]] && on=(--backend cuda --device "$gpu")
            step "ort-tokens-$dtype-$name" 60 "$photonc" generate "$bundle" "${on[@]}" --prompt-ids "$prompt" \
                --max-new-tokens 64 --run-ahead 8 --greedy --json
            step "ort-bench-$dtype-$name" 75 "$photonc" bench "$bundle" "${on[@]}" --protocol recgen --regime 1152/128 --batch 1,8 \
                --run-ahead 8 --repetitions 2 --json
        done
        [[ -n "$dry" ]] && continue
        cat "$out/ort-tokens-$dtype-"{ort,cuda}.log >"$out/ort-both.log"
        told "$dtype, tokens as cuda's" "$out/ort-both.log" \
            "(lambda a, b: f'first {next((k for k, (x, y) in enumerate(zip(a, b)) if x != y), len(a))} of {len(b)}')(d[0]['tokens'], d[1]['tokens'])"
        cat "$out/ort-bench-$dtype-"{ort,cuda}.log >"$out/ort-both.log"
        told "$dtype, tokens/s" "$out/ort-both.log" \
            "'; '.join(f'batch {a[\"batch\"]}: ort {a[\"tokens_per_second\"]:,.0f}, cuda {b[\"tokens_per_second\"]:,.0f}' for a, b in zip(*(x['points'] for x in d)))"
        rm -rf "${bundle:?}"
    done
    [[ -n "$dry" ]] || rm -rf "${model:?}"
}

ort() {
    if [[ -z "$dry" ]] && ! "$photonc" doctor | grep -q 'with providers .*CUDA'; then
        table+=("SKIPPED ort: no ONNX Runtime with the CUDA provider; name the folder of its library with PHOTONC_ORT_LIB")
        echo "${table[-1]}"
        return
    fi
    ort_goldens
    ort_paper
}

doctor() { step doctor 30 "$photonc" doctor; }

kernels() { step kernels 300 python3 "$root/tests/gpu/kernels.py"; }

goldens() {
    step goldens 300 env PHOTONC_GPU="$gpu" CARGO_MANIFEST_DIR="$root" "$tests" codes:: forced:: goldens:: english:: older:: precision:: scala:: serving:: --test-threads 1
}

sanitizer() {
    step "$1" "$2" env PHOTONC_GPU="$gpu" CARGO_MANIFEST_DIR="$root" \
        compute-sanitizer --tool "$1" --error-exitcode 1 "$tests" --exact goldens::a_golden_for_the_sanitizer \
        precision::a_golden_in_f16_for_the_sanitizer --test-threads 1
}

memcheck() { sanitizer memcheck 180; }

racecheck() { sanitizer racecheck 300; }

first() {
    bundle 600m || return
    local prompt kernels="$work/kernels"
    prompt="$(seq -s , 1 128)"
    # NVRTC keeps what it compiled in the driver's cache, besides ours.
    [[ -n "$dry" ]] || rm -rf "$kernels"
    for run in cold warm; do
        step "first-$run" 60 env XDG_CACHE_HOME="$kernels" CUDA_CACHE_PATH="$kernels/nvidia" \
            "$photonc" generate "$work/paper-600m" --backend cuda \
            --devices "$gpu" --prompt-ids "$prompt" --max-new-tokens 16 --run-ahead 1 --greedy --json
        told "whole process is above" "$out/first-$run.log" \
            "'first token %.3f s after the graphs were loaded' % d[0]['timing']['first_token_seconds']"
    done
}

prompts() {
    bundle 600m || return
    local file="$work/prompts.jsonl" devices run name
    [[ -n "$dry" ]] || python3 -c '
import json, random
draw = random.Random(1)
for _ in range(4096):
    print(json.dumps({"prompt_ids": [draw.randrange(1, 32000) for _ in range(draw.randint(16, 900))]}))' >"$file"
    local sets=("$gpu")
    if [[ -n "$dry" || "$(nvidia-smi --list-gpus 2>/dev/null | wc -l)" -ge 2 ]]; then sets+=("0,1"); fi
    for devices in "${sets[@]}"; do
        for run in 1 2; do
            name="prompts-${devices/,/+}-$run"
            step "$name" 150 "$photonc" generate "$work/paper-600m" --backend cuda --devices "$devices" --prompts-file "$file" \
                --max-new-tokens 128 --greedy --ignore-eos --out "$work/$name.jsonl" --json
            told "GPU $devices, run $run" "$out/$name.log" \
                "(lambda x: f'{x[\"tokens\"]:,} tokens in {x[\"seconds\"]:.2f} s: {x[\"tokens_per_second\"]:,.0f} tokens/s, {x[\"failed\"]} failed')(d[-1])"
            [[ -n "$dry" ]] || rm -f "$work/$name.jsonl"
        done
    done
}

workers() {
    if [[ -z "$dry" && "$(nvidia-smi --list-gpus 2>/dev/null | wc -l)" -lt 2 ]]; then
        table+=("SKIPPED workers: needs two GPUs")
        echo "${table[-1]}"
        return
    fi
    local model="$work/workers-model" bundle="$work/workers" gateway=()
    if [[ -n "$dry" || -d "$work/gateway/smg" ]]; then gateway=(--smg "$work/gateway"); fi
    # A checkpoint with a tokenizer is more than `synth` replaces.
    [[ -n "$dry" ]] || rm -rf "$model"
    step workers-synth 60 "$photonc" synth --preset paper-600m --dtype bf16 --out "$model" --force &&
        step workers-words 10 python3 "$root/scripts/bench_fleet.py" --words "$model" &&
        step workers-export 90 "$photonc" export "$model" --out "$bundle" --dtype bf16 --target cuda --max-tokens 2048 --force || return
    step workers 210 python3 "$root/scripts/bench_fleet.py" "$photonc" "$bundle" "${gateway[@]}" --logs "$out/workers-logs"
    local name
    for name in "one worker" "two workers" "one worker behind smg" "two workers behind smg" "one process with both"; do
        told "$name" "$out/workers.log" "'%s tokens/s' % format(round(next(x for x in d if x['set_up'] == '$name')['tokens_per_s']), ',')"
    done
    told "ratios" "$out/workers.log" "', '.join(f'{name}: {times:.2f}x' for name, times in d[-1].items() if name != 'set_up')"
}

# Texts are compared as a program would: by their tokens, line by line.
invariant() {
    bundle 600m || return
    local setting batch ahead mode name
    for setting in "1 8" "8 8" "64 4" "512 1" "2048 1"; do
        read -r batch ahead <<<"$setting"
        for mode in usual invariant; do
            name="invariant-$mode-$batch-k$ahead"
            local extra=()
            if [[ "$mode" == invariant ]]; then extra=(--batch-invariant); fi
            bench "$name" 60 "$work/paper-600m" --protocol recgen --regime 1152/256 --batch "$batch" --run-ahead "$ahead" "${extra[@]}"
            told "$mode, batch $batch, k $ahead" "$out/$name.log" "'%s tokens/s' % format(round(d[-1]['tokens_per_second']), ',')"
        done
    done
    local file="$work/invariant.jsonl"
    [[ -n "$dry" ]] || python3 -c '
import json, random
draw = random.Random(2)
for _ in range(64):
    print(json.dumps({"prompt_ids": [draw.randrange(1, 32000) for _ in range(draw.randint(0, 900))]}))' >"$file"
    local beside written
    for mode in usual invariant; do
        local extra=()
        if [[ "$mode" == invariant ]]; then extra=(--batch-invariant); fi
        for beside in together alone; do
            written="$work/invariant-$mode-$beside.jsonl" batch=64
            if [[ "$beside" == alone ]]; then batch=1; fi
            # What a file has is not generated again.
            [[ -n "$dry" ]] || rm -f "$written"
            step "invariant-$mode-$beside" 120 "$photonc" generate "$work/paper-600m" --prompts-file "$file" --batch "$batch" \
                --backend cuda --devices "$gpu" --max-new-tokens 256 --greedy --ignore-eos "${extra[@]}" --out "$written"
        done
        [[ -n "$dry" ]] || table+=("$(printf '  %-26s %s' "$mode, texts alike" "$(python3 -c '
import json, sys
together, alone = (sorted(map(json.loads, open(name)), key=lambda line: line["index"]) for name in sys.argv[1:])
print(sum(a["tokens"] == b["tokens"] for a, b in zip(together, alone, strict=True)), "of", len(alone))' \
            "$work/invariant-$mode-together.jsonl" "$work/invariant-$mode-alone.jsonl" 2>&1 | tail -n 1)")")
    done
}

lengths() {
    bundle 600m || return
    local run length
    for run in 1 2; do
        for length in 2047 2048 2049; do
            bench "lengths-$length-$run" 60 "$work/paper-600m" --protocol recgen --regime "$length/64" --batch 1 --run-ahead 1 --repetitions 10
            told "prompt of $length, run $run" "$out/lengths-$length-$run.log" \
                "'first token after %.2f ms' % (1e3 * d[-1]['first_token_seconds'])"
        done
    done
}

# Both sides at a context of about 2100 tokens, greedy, with the same run-ahead; photonc's rate is that after the first burst.
# PHOTONC_PEER_OPTIONS=--fast spares PyTorch's search for the fastest kernels, which takes minutes.
peer() {
    bundle 600m || return
    # shellcheck disable=SC2086
    step peer-pytorch "${PHOTONC_PEER_SECONDS:-480}" python3 "$pack/peer_bench.py" --no-vanilla ${PHOTONC_PEER_OPTIONS:-} --batch 1 8 64 2048
    local batch ahead figure run
    while read -r batch ahead figure; do
        for run in 1 2; do
            bench "peer-$batch-k$ahead-$run" 60 "$work/paper-600m" --protocol recgen --regime 1152/1024 --batch "$batch" --run-ahead "$ahead"
        done
        [[ -n "$dry" ]] && continue
        cat "$out/peer-pytorch.log" "$out/peer-$batch-k$ahead-"[12].log >"$out/peer-both.log"
        told "batch $batch, k $ahead" "$out/peer-both.log" \
            "(lambda first, own, peer: f'{first:,.0f}, {own:,.0f} tokens/s, PyTorch {peer:,.0f}: {(first + own) / 2 / peer:.2f}x')(*(x['steady_tokens_per_second'] for x in d[-2:]), next(x['$figure'] for x in d if x.get('B') == $batch))"
    done <<'LIST'
1 1 interleaved_compiled_tok_s
1 8 split_G8_compiled_tok_s
8 8 split_G8_compiled_tok_s
64 4 split_G4_compiled_tok_s
2048 1 interleaved_compiled_tok_s
LIST
}

steps() {
    bundle 600m || return
    local run
    for run in 1 2; do
        # One burst: nothing runs beside its coarse step.
        bench "steps-coarse-$run" 60 "$work/paper-600m" --protocol recgen --regime 1152/16 --batch 1 --run-ahead 1 --repetitions 20
        told "coarse step $run" "$out/steps-coarse-$run.log" \
            "(lambda x: f'{1e3 * x[\"device_seconds\"] / x[\"runs\"]:.3f} ms, MBU {x[\"mbu\"]:.0%}')(d[-1]['graphs']['coarse'])"
        bench "steps-prefill-$run" 60 "$work/paper-600m" --protocol recgen --regime 2048/16 --batch 32 --run-ahead 1 --repetitions 10
        told "prefill 32 x 2048, $run" "$out/steps-prefill-$run.log" \
            "(lambda x: f'{1e3 * x[\"device_seconds\"] / x[\"runs\"]:.2f} ms, MFU {x[\"mfu\"]:.0%}')(d[-1]['graphs']['encode'])"
    done
}

# A bundle of paper-600m and one of paper-30m for each scheme, made side by side.
coded_bundles() {
    local size scheme quant
    for size in 600m 30m; do
        step "codes-synth-$size" 60 "$photonc" synth --preset "paper-$size" --dtype bf16 --out "$work/codes-model-$size" --force || return
    done
    local running=()
    for scheme in bf16 int8 fp8 int4; do
        quant=(--quant "level1=$scheme,level2=$scheme,lm_head=$scheme")
        [[ "$scheme" == bf16 ]] && quant=()
        for size in 600m 30m; do
            step "codes-export-$size-$scheme" 90 "$photonc" export "$work/codes-model-$size" --out "$work/codes-$size-$scheme" \
                --dtype bf16 --target cuda --max-tokens 4096 --force --json "${quant[@]}" &
            running+=($!)
            # A dry run's lines stay in order.
            [[ -z "$dry" ]] || wait "$!"
        done
    done
    local one whole=0
    for one in "${running[@]}"; do wait "$one" || whole=1; done
    ((whole)) && failed=1
    [[ -n "$dry" ]] || rm -r "$work/codes-model-600m" "$work/codes-model-30m"
    return "$whole"
}

codes() {
    coded_bundles || return
    local scheme
    for scheme in bf16 int8 fp8 int4; do
        local bundle="$work/codes-600m-$scheme" name="codes-$scheme"
        bench "$name-k8" 40 "$bundle" --protocol recgen --regime 1152/512 --batch 1,8 --run-ahead 8 --repetitions 2
        bench "$name-k1" 40 "$bundle" --protocol recgen --regime 1152/512 --batch 1 --run-ahead 1 --repetitions 2
        # One burst: nothing runs beside its coarse step.
        bench "$name-coarse" 40 "$bundle" --protocol recgen --regime 1152/16 --batch 1 --run-ahead 1 --repetitions 10
        told "$scheme, (1,1)" "$out/$name-k1.log" \
            "(lambda x: f'{x[\"steady_tokens_per_second\"]:,.0f} tokens/s, MBU {x[\"mbu\"]:.0%}, {x[\"weight_bytes\"] / 2**20:,.0f} MiB')(d[-1])"
        told "$scheme, (1,8) (8,8)" "$out/$name-k8.log" \
            "', '.join(f'{x[\"steady_tokens_per_second\"]:,.0f} tokens/s, MBU {x[\"mbu\"]:.0%}' for x in d[-1]['points'])"
        told "$scheme, coarse step" "$out/$name-coarse.log" \
            "(lambda x: f'{1e3 * x[\"device_seconds\"] / x[\"runs\"]:.3f} ms, MBU {x[\"mbu\"]:.0%}')(d[-1]['graphs']['coarse'])"
        told "$scheme, weights off by" "$out/codes-export-600m-$scheme.log" \
            "'%.2f %% at most' % (100 * max((x['relative_error'] for x in d[-1]['quantized']), default=0))"
        told "$scheme, logits of paper-30m" "$out/codes-export-30m-$scheme.log" \
            "(lambda x: f'off by {x[\"largest_error\"]:.2f} of {x[\"largest_logit\"]:.1f}, KL {x[\"kl_nats\"]:.1e} nats, same greedy token {x[\"greedy_agreement\"]:.1%}')(d[-1]['logits'])"
    done
}

profile() {
    bundle 600m || return
    local batch
    for batch in ${1:-1 2048}; do
        step "profile-$batch" 150 ncu --csv --page raw --clock-control none \
            --metrics gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum \
            "$photonc" bench "$work/paper-600m" --protocol recgen --regime 64/48 --batch "$batch" --run-ahead 1 --repetitions 1 \
            --backend cuda --devices "$gpu" --json
        [[ -n "$dry" ]] || python3 "$root/tests/gpu/ncu_table.py" "$out/profile-$batch.log" | tee "$out/profile-$batch.txt"
    done
}

paper_one() {
    local size="$1" protocol="$2" regime="$3" name="paper-$1-$2-$3" ahead=8
    [[ "$protocol" == hiergen ]] && ahead=1
    bench "$name" 280 "$work/paper-$size" --protocol "$protocol" --regime "$regime" --batch max --run-ahead "$ahead" --repetitions 1
    told "$size $protocol $regime" "$out/$name.log" \
        "(lambda x: f'batch {x[\"batch\"]}: {x[\"tokens_per_second\"] / 1e3:,.2f} K tokens/s, per GiB of KV {x[\"tokens_per_second_per_gib\"][\"top\"] / 1e3:,.1f} K (top), {x[\"tokens_per_second_per_gib\"][\"all\"] / 1e3:,.1f} K (all), MBU {x[\"mbu\"]:.0%}, MFU {x[\"mfu\"]:.0%}')(d[-1])"
}

# paper [SIZE [PROTOCOL [REGIME]]]: what is not named is every one.
paper() {
    local size protocol regime
    for size in ${1:-600m 900m 1.2b}; do
        bundle "$size" || continue
        for protocol in ${2:-recgen hiergen}; do
            for regime in ${3:-pf de}; do
                paper_one "$size" "$protocol" "$regime"
            done
        done
        # One size at a time on the disk.
        [[ -n "$dry" || "$size" == 600m ]] || rm -rf "${work:?}/paper-$size"
    done
}

curve() {
    bundle 600m || return
    bench curve 300 "$work/paper-600m" --protocol recgen --regime 128/512 --run-ahead 4 --repetitions 3 \
        --batch 1,4,16,64,256,1024,4096 --plot "$out/curve.svg"
    told "tokens/s by batch" "$out/curve.log" \
        "', '.join('%d: %s' % (p['batch'], format(round(p['tokens_per_second']), ',')) for p in d[-1]['points'])"
}

stress_one() {
    local dtype="$1" rows="$2" seconds="$3"
    step "stress-$dtype" "$((seconds + 150))" env PHOTONC_GPU="$gpu" CARGO_MANIFEST_DIR="$root" PHOTONC_STRESS_SECONDS="$seconds" \
        PHOTONC_STRESS_BUNDLE="$work/paper-600m" PHOTONC_STRESS_DTYPE="$dtype" PHOTONC_STRESS_ROWS="$rows" \
        "$tests" --exact stress::random_requests_leave_memory_flat_and_rows_right --nocapture --test-threads 1
    told "$dtype" "$out/stress-$dtype.log" 'd[-1]'
}

# stress [DTYPE]: what is not named is both.
stress() {
    bundle 600m || return
    local third=$((stress_seconds / 3))
    [[ "${1:-f32}" == f32 ]] && stress_one f32 128 "$third"
    [[ "${1:-bf16}" == bf16 ]] && stress_one bf16 512 "$((stress_seconds - third))"
}

[[ -n "$dry" ]] || unpack
for part in "${parts[@]}"; do
    case "$part" in
    doctor | kernels | goldens | memcheck | racecheck | ort | first | prompts | workers | invariant | lengths | peer | steps | codes | curve) "$part" ;;
    stress | stress:f32 | stress:bf16) stress "$(cut -s -d: -f2 <<<"$part")" ;;
    profile | profile:*) profile "$(cut -s -d: -f2 <<<"$part")" ;;
    paper | paper:*)
        IFS=: read -r _ size protocol regime <<<"$part::::"
        paper "$size" "$protocol" "${regime%%:*}"
        ;;
    *)
        echo "unknown part $part: ${every[*]} all" >&2
        exit 2
        ;;
    esac
done
if [[ -z "$dry" ]]; then
    {
        echo
        nvidia-smi --query-gpu=name,driver_version --format=csv,noheader --id="$gpu"
        [[ -f "$pack/commit" ]] && echo "photonc $(cat "$pack/commit")"
        printf '%s\n' "${table[@]}"
    } | tee "$out/table.txt"
fi
exit "$failed"
