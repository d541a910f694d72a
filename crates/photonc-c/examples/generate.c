// Generates behind a prompt: whole with its states, as tokens come, and from a trajectory; scores, and measures the drift.
// Usage: generate BUNDLE [BACKEND]
#include <photonc.h>
#include <stdio.h>
#include <string.h>

#define CHECK(call)                                                                     \
    do {                                                                                \
        photonc_status status_ = (call);                                                \
        if (status_ != PHOTONC_OK) {                                                    \
            fprintf(stderr, "%s: status %d: %s\n", #call, status_, photonc_last_error()); \
            return 1;                                                                   \
        }                                                                               \
    } while (0)

struct counted {
    size_t pieces, tokens;
};

static int32_t on_piece(const photonc_piece *piece, void *user_data) {
    struct counted *counted = user_data;
    counted->pieces += 1;
    counted->tokens += piece->token_ids_count;
    return 0;
}

static int32_t cancel_at_once(const photonc_piece *piece, void *user_data) {
    (void)piece;
    (void)user_data;
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s BUNDLE [BACKEND]\n", argv[0]);
        return 2;
    }
    if (photonc_api_version() < PHOTONC_API_VERSION) {
        fprintf(stderr, "the library is older than the header\n");
        return 1;
    }
    photonc_load_options load;
    photonc_load_options_init(&load);
    load.backend = argc > 2 ? argv[2] : NULL;
    photonc_model *model = NULL;
    CHECK(photonc_load(argv[1], &load, &model));
    photonc_model_info info = {.struct_size = sizeof info};
    CHECK(photonc_model_get_info(model, &info));
    printf("%s: %zu ids, %zu tokens in a meta-context\n", info.backend, (size_t)info.vocab_size, (size_t)info.meta_tokens);

    const int64_t ids[] = {1, 2, 3, 4, 5};
    const photonc_prompt prompt = {.token_ids = ids, .token_ids_count = 5};
    photonc_sampling_params params;
    photonc_sampling_params_init(&params);
    params.temperature = 0;
    params.max_tokens = 24;
    params.logprobs = 1;
    params.n = 2;

    photonc_generate_options options;
    photonc_generate_options_init(&options);
    options.return_states = 1;
    photonc_outputs *outputs = NULL;
    CHECK(photonc_generate(model, &prompt, 1, &params, &options, &outputs));
    photonc_sequence sequence = {.struct_size = sizeof sequence};
    CHECK(photonc_outputs_get(outputs, 0, 1, &sequence));
    for (size_t at = 0; at < sequence.token_ids_count; at++)
        printf("%lld ", (long long)sequence.token_ids[at]);
    printf("(%.3f)\n", sequence.logprobs[0].chosen.logprob);

    // What conditions each meta-context.
    size_t states = 0;
    CHECK(photonc_outputs_states(outputs, 0, &states));
    if (states == 0) return 1;
    for (size_t at = 0; at < states; at++) {
        photonc_state state = {.struct_size = sizeof state};
        CHECK(photonc_outputs_state(outputs, 0, at, &state));
        if (state.values_count == 0 || strlen(state.name) == 0 || state.values[0] != state.values[0]) return 1;
    }
    photonc_state beyond = {.struct_size = sizeof beyond};
    if (photonc_outputs_state(outputs, 0, states, &beyond) != PHOTONC_ARGUMENT_ERROR) return 1;
    printf("%zu states\n", states);

    struct counted counted = {0, 0};
    CHECK(photonc_generate_with(model, &prompt, 1, &params, NULL, on_piece, &counted));
    printf("%zu tokens of %zu\n", counted.tokens, 2 * sequence.token_ids_count);
    if (counted.tokens != 2 * sequence.token_ids_count) return 1;
    params.max_tokens = 200;
    if (photonc_generate_with(model, &prompt, 1, &params, NULL, cancel_at_once, NULL) != PHOTONC_CANCELLED) return 1;
    params.max_tokens = 24;

    photonc_stream *stream = NULL;
    // Streams have tokens only.
    if (photonc_stream_start(model, &prompt, 1, &params, &options, &stream) != PHOTONC_REFUSED) return 1;
    CHECK(photonc_stream_start(model, &prompt, 1, &params, NULL, &stream));
    photonc_next next = PHOTONC_NEXT_WAITING;
    for (size_t tokens = 0; next != PHOTONC_NEXT_OVER;) {
        photonc_piece piece = {.struct_size = sizeof piece};
        CHECK(photonc_stream_next(stream, 1000, &piece, &next));
        if (next == PHOTONC_NEXT_PIECE) tokens += piece.token_ids_count;
        if (next == PHOTONC_NEXT_OVER && tokens != counted.tokens) return 1;
    }
    photonc_stream_free(stream);

    double logprobs[5];
    CHECK(photonc_score(model, ids, 5, logprobs));
    photonc_scores *scores = NULL;
    const photonc_token_logprobs *scored = NULL;
    size_t places = 0, needed = 0;
    CHECK(photonc_score_tokens(model, ids, 5, 3, &scores));
    CHECK(photonc_scores_get(scores, &scored, &places));
    if (places != 5 || scored[4].top_count != 3 || scored[4].rank == 0) return 1;
    if (scored[4].chosen.token != ids[4] || scored[4].chosen.logprob != logprobs[4]) return 1;
    photonc_scores_free(scores);
    if (photonc_score_logits(model, ids, 5, NULL, 0, &needed) != PHOTONC_TOO_SMALL) return 1;
    printf("ln p %.3f; %zu logits\n", logprobs[4], needed);

    photonc_trajectory *trajectory = NULL;
    CHECK(photonc_trajectory_new(model, &prompt, &params, &trajectory));
    size_t meta_contexts = 0, count = 0;
    CHECK(photonc_trajectory_advance(trajectory, 2, &meta_contexts));
    int64_t drawn[256];
    const uint64_t seed = 7;
    CHECK(photonc_trajectory_expand(trajectory, 0, meta_contexts, &seed, drawn, 256, &count));
    printf("%zu meta-contexts, %zu tokens\n", meta_contexts, count);
    photonc_trajectory_info far = {.struct_size = sizeof far};
    CHECK(photonc_trajectory_get_info(trajectory, &far));
    if (far.meta_contexts != meta_contexts || far.first_position < 5) return 1;
    // As it is, its ranges are what was drawn on the way; another sequence of the same seed is greedy here, and so the same.
    int64_t own[256], again[256];
    size_t own_count = 0, again_count = 0;
    CHECK(photonc_trajectory_tokens(trajectory, own, 256, &own_count));
    CHECK(photonc_trajectory_expand_sequence(trajectory, 0, meta_contexts, NULL, 1, again, 256, &again_count));
    if (again_count != count || memcmp(again, drawn, count * sizeof *drawn) != 0) return 1;
    if (memcmp(again, own + (far.first_position - 5), count * sizeof *own) != 0) return 1;

    int64_t text[256];
    for (size_t at = 0; at < 256; at++) text[at] = (int64_t)(at * 7 % info.vocab_size);
    const photonc_prompt measured = {.token_ids = text, .token_ids_count = 256};
    photonc_drift_options drift;
    photonc_drift_options_init(&drift);
    drift.prompt_tokens = info.meta_tokens;
    drift.new_tokens = info.meta_tokens;
    drift.prompts = 1;
    char *document = NULL;
    CHECK(photonc_drift(argv[1], &measured, &load, &drift, &document));
    if (strstr(document, "\"by_meta_context\"") == NULL) return 1;
    photonc_text_free(document);

    // What cannot be met is a status with its reason.
    params.top_p = 2;
    photonc_outputs *none = NULL;
    photonc_status refused = photonc_generate(model, &prompt, 1, &params, NULL, &none);
    printf("status %d: %s\n", refused, photonc_last_error());
    if (refused != PHOTONC_REFUSED || none != NULL || strlen(photonc_last_error()) == 0) return 1;

    photonc_trajectory_free(trajectory);
    photonc_outputs_free(outputs);
    photonc_model_free(model);
    return 0;
}
