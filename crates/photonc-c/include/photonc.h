// photonc: PHOTON hierarchical language models in C. Made by cbindgen from crates/photonc-c; docs/c.md shows how it is used.
//
// Handles are freed once, by the function of their type; null is nothing. Structures whose first field is struct_size are set up
// by their init function, or by setting struct_size to sizeof; those of an older header go on to work. Texts are UTF-8. A call
// that fails returns a status and leaves its out-parameters alone, but for counts of what is needed;
// photonc_last_error() says why.

#ifndef PHOTONC_H
#define PHOTONC_H

#include <stddef.h>
#include <stdint.h>

// Version of this interface: it grows by one when functions or fields are added, and never changes what is there.
#define PHOTONC_API_VERSION 2

// What became of a call.
typedef enum photonc_status {
  // It is done.
  PHOTONC_OK = 0,
  // A checkpoint or a bundle cannot be read, or is not what it says.
  PHOTONC_CHECKPOINT_ERROR = 1,
  // What was asked for cannot be met.
  PHOTONC_REFUSED = 2,
  // A library, a device or a graph failed.
  PHOTONC_BACKEND_ERROR = 3,
  // The work was cancelled, or the model was closed.
  PHOTONC_CANCELLED = 4,
  // An argument is null where it may not be, no UTF-8, or of a size that this version does not know.
  PHOTONC_ARGUMENT_ERROR = 5,
  // The caller's memory is too small; how much is needed has been written.
  PHOTONC_TOO_SMALL = 6,
  // A bug of photonc.
  PHOTONC_INTERNAL_ERROR = 7,
} photonc_status;

// Why a sequence ended.
typedef enum photonc_finish {
  // It has not.
  PHOTONC_FINISH_NONE = 0,
  // At an id or a text that ends sequences.
  PHOTONC_FINISH_STOP = 1,
  // At as many tokens as were asked for.
  PHOTONC_FINISH_LENGTH = 2,
  // It was cancelled.
  PHOTONC_FINISH_ABORT = 3,
} photonc_finish;

// What a stream has.
typedef enum photonc_next {
  // A piece, which was written.
  PHOTONC_NEXT_PIECE = 0,
  // Nothing came within the time.
  PHOTONC_NEXT_WAITING = 1,
  // Nothing more.
  PHOTONC_NEXT_OVER = 2,
} photonc_next;

// A loaded model; any thread may use it, several at once.
typedef struct photonc_model photonc_model;

// Finished sequences of prompts.
typedef struct photonc_outputs photonc_outputs;

// Log-probabilities of given tokens, with ranks and the most probable ones.
typedef struct photonc_scores photonc_scores;

// Sequences on their way. Any thread may cancel one; one thread at a time asks for what comes.
typedef struct photonc_stream photonc_stream;

// A coarse trajectory: states that no sampled token reaches, from which any range of tokens can be drawn again.
typedef struct photonc_trajectory photonc_trajectory;

// What is measured of a drift. `photonc_drift_options_init` fills it with the defaults.
typedef struct photonc_drift_options {
  // `sizeof(photonc_drift_options)`.
  uint32_t struct_size;
  // Whether both protocols also draw greedily, and their tokens are compared: 1, or 0.
  uint32_t free_running;
  // Tokens of each prompt, in whole meta-contexts.
  uint64_t prompt_tokens;
  // Tokens behind each prompt, in whole meta-contexts.
  uint64_t new_tokens;
  // Prompts at most: they follow each other in the text.
  uint64_t prompts;
  // Prompts at once.
  uint64_t batch;
  // Distances from the prompt, in tokens, between which is measured; null are 16, 64 and 256.
  const uint64_t *distances;
  // How many stand there.
  size_t distances_count;
} photonc_drift_options;

// A prompt: a text, or token ids where that is null.
typedef struct photonc_prompt {
  // UTF-8 that ends with a zero byte; or null.
  const char *text;
  // Token ids, oldest first.
  const int64_t *token_ids;
  // How many stand there.
  size_t token_ids_count;
} photonc_prompt;

// How a bundle is loaded. `photonc_load_options_init` fills it with the defaults.
typedef struct photonc_load_options {
  // `sizeof(photonc_load_options)`.
  uint32_t struct_size;
  // Number of the GPU, for `cuda`.
  uint32_t device;
  // `auto`, `cpu`, `tract`, `reference`, `ort` or `cuda`; null is `auto`: `cuda` where there is a GPU.
  const char *backend;
  // Threads that compute, for `cpu` and `ort`; 0 is one per core.
  uint32_t threads;
  // Whether the weights are compared with their hashes, which reads all of them: 1, or 0.
  uint32_t verify;
  // Sequences side by side; 0 is 16 on the host, and what fits on a GPU.
  uint32_t rows;
  // Meta-contexts of a burst at most.
  uint32_t run_ahead;
  // Most tokens of a sequence, prompt included; 0 is what the bundle has room for.
  uint64_t max_tokens;
  // Whether a sequence has the same tokens whatever stands beside it on `cuda` too, which takes time there: 1, or 0. On `cpu`
  // and `reference` it has them anyway; other backends refuse it.
  uint32_t batch_invariant;
  // Nothing yet: 0.
  uint32_t reserved;
} photonc_load_options;

// A stack of the model and how its weights are quantized: `level1.decoder`, `int8`.
typedef struct photonc_quant {
  // The stack.
  const char *stack;
  // `int8`, `int4` or `fp8`.
  const char *scheme;
} photonc_quant;

// How a checkpoint is exported. `photonc_export_options_init` fills it with the defaults.
typedef struct photonc_export_options {
  // `sizeof(photonc_export_options)`.
  uint32_t struct_size;
  // Whether a bundle that stands there is replaced: 1, or 0.
  uint32_t force;
  // `f32`, `f16` or `bf16`; null is `f32`.
  const char *dtype;
  // Whom ONNX models are written for: `portable`, `tensorrt-rtx`, `tensorrt`, `cpu` or `cuda` (none);
  // null is `portable`, unless that takes a second copy of the weights.
  const char *target;
  // One protocol to compile for; null is every one that the model defines.
  const char *protocol;
  // Stacks whose weights are quantized.
  const struct photonc_quant *quant;
  // How many stand there.
  size_t quant_count;
  // Longest sequence in tokens; 0 is what the checkpoint states.
  uint64_t max_tokens;
  // Data file of the checkpoint's layout; null recognises it.
  const char *weight_map;
  // Whether a checkpoint with tensors that the model has not is taken: 1, or 0.
  uint32_t ignore_unexpected;
  // Whether NaN and infinite weights are taken as they are: 1, or 0.
  uint32_t allow_nonfinite;
} photonc_export_options;

// Told how far an export has come, perhaps on other threads than the one that called, one at a time: a stage, the bytes done and
// the bytes in all, 0 where bytes do not measure it. It must not unwind.
typedef void (*photonc_on_progress)(const char *stage,
                                    uint64_t done_bytes,
                                    uint64_t total_bytes,
                                    void *user_data);

// A token id and what is added to its logit.
typedef struct photonc_logit_bias {
  // The id.
  int64_t token;
  // What is added.
  double bias;
} photonc_logit_bias;

// How tokens are drawn and where sequences end. `photonc_sampling_params_init` fills it with the defaults: one sequence of 16
// tokens from the model's own distribution.
typedef struct photonc_sampling_params {
  // `sizeof(photonc_sampling_params)`.
  uint32_t struct_size;
  // Sequences of a prompt.
  uint32_t n;
  // Divides the logits; 0 is greedy.
  double temperature;
  // Keeps the most probable tokens that reach this mass.
  double top_p;
  // Keeps so many of the most probable tokens; 0 or -1 keeps all.
  int64_t top_k;
  // Keeps tokens at least this probable relative to the most probable one.
  double min_p;
  // Taken off the logits of tokens among the new ones.
  double presence_penalty;
  // The same for each time they occur.
  double frequency_penalty;
  // Divides the logits above 0 of tokens that occurred, prompt included.
  double repetition_penalty;
  // Added to logits.
  const struct photonc_logit_bias *logit_bias;
  // How many stand there.
  size_t logit_bias_count;
  // Log-probabilities of each new token and of so many of the most probable ones, 20 at most; -1 is none.
  int32_t logprobs;
  // The same of each token of the prompt.
  int32_t prompt_logprobs;
  // Texts that end a sequence and are not part of it.
  const char *const *stop;
  // How many stand there.
  size_t stop_count;
  // Token ids that end a sequence and are not part of it.
  const int64_t *stop_token_ids;
  // How many stand there.
  size_t stop_token_ids_count;
  // New tokens of a sequence at most; 0 is all that there is room for.
  uint64_t max_tokens;
  // New tokens before which no id ends a sequence.
  uint64_t min_tokens;
  // Whether a sequence goes on behind the ids that end it by the model's convention: 1, or 0.
  uint32_t ignore_eos;
  // Whether `seed` counts: 1; or 0, and every prompt has another.
  uint32_t has_seed;
  // Key of the random numbers: the same seed gives the same tokens.
  uint64_t seed;
} photonc_sampling_params;

// How a generation runs. `photonc_generate_options_init` fills it with the defaults.
typedef struct photonc_generate_options {
  // `sizeof(photonc_generate_options)`.
  uint32_t struct_size;
  // Meta-contexts of a burst while this runs, up to what the model was loaded with; 0 leaves it to the load. No token
  // depends on it, and calls that run together share it.
  uint32_t run_ahead;
  // `recgen`, `hiergen`, ...; null is `recgen` where the bundle has it.
  const char *protocol;
  // Whether logits are kept, which is slower: 1, or 0. Streams have none.
  uint32_t return_logits;
  // Whether the states that condition each meta-context are kept, which is slower: 1, or 0. Streams have none.
  uint32_t return_states;
} photonc_generate_options;

// What a model is.
typedef struct photonc_model_info {
  // `sizeof(photonc_model_info)`, set by the caller.
  uint32_t struct_size;
  // Whether it has a tokenizer: 1, or 0.
  uint32_t has_tokenizer;
  // Number of token ids.
  uint64_t vocab_size;
  // Tokens of a meta-context.
  uint64_t meta_tokens;
  // Tokens of the longest sequence, prompt included.
  uint64_t max_tokens;
  // Name of the backend; it lives as long as the model.
  const char *backend;
} photonc_model_info;

// A token and its log-probability.
typedef struct photonc_logprob {
  // The id.
  int64_t token;
  // Natural logarithm of its probability under the model's own distribution.
  double logprob;
} photonc_logprob;

// Log-probabilities at a place.
typedef struct photonc_token_logprobs {
  // The token that stands there.
  struct photonc_logprob chosen;
  // Tokens more probable than it, plus one.
  uint64_t rank;
  // The most probable tokens, best first.
  const struct photonc_logprob *top;
  // How many stand there.
  size_t top_count;
} photonc_token_logprobs;

// A finished sequence. Its pointers live as long as the outputs.
typedef struct photonc_sequence {
  // `sizeof(photonc_sequence)`, set by the caller.
  uint32_t struct_size;
  // Why it ended.
  enum photonc_finish finish;
  // Its text up to a stop string, UTF-8; null where the model has no tokenizer.
  const char *text;
  // Its tokens, without the id that ended it.
  const int64_t *token_ids;
  // How many there are.
  size_t token_ids_count;
  // Log-probabilities of its tokens, if they were asked for.
  const struct photonc_token_logprobs *logprobs;
  // How many there are.
  size_t logprobs_count;
  // Logits `[tokens of its meta-contexts, vocab_size]`, if they were asked for: those past its end included.
  const float *logits;
  // How many elements there are.
  size_t logits_count;
} photonc_sequence;

// A state that conditions a meta-context. Its pointers live as long as the outputs.
typedef struct photonc_state {
  // `sizeof(photonc_state)`, set by the caller.
  uint32_t struct_size;
  // Nothing yet: 0.
  uint32_t reserved;
  // Number of the sequence among those of its prompt; 0 for what all of them share.
  size_t sequence;
  // The meta-context, from 0 behind the whole ones of the prompt.
  size_t meta_context;
  // Name in the graphs: `top_state`, `carry.1`, ..
  const char *name;
  // Elements, row-major.
  const float *values;
  // How many there are.
  size_t values_count;
} photonc_state;

// New tokens of a sequence.
typedef struct photonc_piece {
  // `sizeof(photonc_piece)`, set by the caller.
  uint32_t struct_size;
  // Set with the last piece of a sequence.
  enum photonc_finish finish;
  // Place of the prompt.
  size_t prompt;
  // Number of the sequence among those of its prompt.
  size_t sequence;
  // Text that is certain now, in whole characters, UTF-8; null where the model has no tokenizer.
  const char *text;
  // The tokens.
  const int64_t *token_ids;
  // How many there are.
  size_t token_ids_count;
  // Their log-probabilities, if they were asked for.
  const struct photonc_token_logprobs *logprobs;
  // How many there are.
  size_t logprobs_count;
} photonc_piece;

// Told new tokens, on the thread that called; the piece lives until it returns. 0 goes on, anything else cancels. It must not
// unwind.
typedef int32_t (*photonc_on_piece)(const struct photonc_piece *piece, void *user_data);

// How far a trajectory is.
typedef struct photonc_trajectory_info {
  // `sizeof(photonc_trajectory_info)`, set by the caller.
  uint32_t struct_size;
  // Nothing yet: 0.
  uint32_t reserved;
  // Meta-contexts that it has.
  size_t meta_contexts;
  // Position of the first token of its first meta-context, prompt included.
  size_t first_position;
} photonc_trajectory_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the interface that the library has, to be compared with `PHOTONC_API_VERSION` of the header.
uint32_t photonc_api_version(void);

// The library's own version, `"0.1.0"`.
const char *photonc_version(void);

// Why the last call of this thread failed, in UTF-8; empty if none has. It stays until this thread's next call that fails.
const char *photonc_last_error(void);

// Fills options with the defaults.
//
// # Safety
// `options` is null or can be written.
void photonc_drift_options_init(struct photonc_drift_options *options);

// How far RecGen drifts from HierGen on a text, given as itself or as tokens: agreement, divergence, perplexities and cosines of
// states. `load` and `options` may be null. What was found is written to `document` as JSON, to be freed with
// `photonc_text_free`.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_drift(const char *bundle,
                                  const struct photonc_prompt *of,
                                  const struct photonc_load_options *load,
                                  const struct photonc_drift_options *options,
                                  char **document);

// Fills options with the defaults.
//
// # Safety
// `options` is null or can be written.
void photonc_export_options_init(struct photonc_export_options *options);

// Compiles a checkpoint into a bundle. `options` and `on_progress` may be null. What was exported is written to `report` as JSON,
// to be freed with `photonc_text_free`, unless that is null.
//
// # Safety
// Pointers are null or as the header says; `user_data` is what `on_progress` makes of it.
enum photonc_status photonc_export(const char *checkpoint,
                                   const char *bundle,
                                   const struct photonc_export_options *options,
                                   photonc_on_progress on_progress,
                                   void *user_data,
                                   char **report);

// What a checkpoint or a bundle holds, as `photonc inspect --json` says it; freed with `photonc_text_free`.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_inspect(const char *path, char **document);

// Compares every graph of a bundle on a backend with the reference, on random inputs; `holds` is told whether every value is as
// near as its arithmetic allows: 1, or 0. What was found is written to `document` as JSON, unless that is null.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_verify(const char *bundle,
                                   const struct photonc_load_options *options,
                                   uint64_t seed,
                                   uint32_t *holds,
                                   char **document);

// What differs between two checkpoints or bundles; `equal` is told whether nothing does: 1, or 0. Weights are compared by their
// bytes where `weights` is not 0. What was found is written to `document` as JSON, unless that is null.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_diff(const char *left,
                                 const char *right,
                                 uint32_t weights,
                                 uint32_t *equal,
                                 char **document);

// Generates behind prompts and waits. `params` and `options` may be null. The outputs are freed with `photonc_outputs_free`.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_generate(const struct photonc_model *model,
                                     const struct photonc_prompt *prompts,
                                     size_t prompts_count,
                                     const struct photonc_sampling_params *params,
                                     const struct photonc_generate_options *options,
                                     struct photonc_outputs **outputs);

// Loads a bundle and waits until it generates. `options` may be null. The model is freed with `photonc_model_free`.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_load(const char *bundle,
                                 const struct photonc_load_options *options,
                                 struct photonc_model **model);

// What a model is; `info->struct_size` is set before.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_model_get_info(const struct photonc_model *model,
                                           struct photonc_model_info *info);

// Cancels what runs and gives back what the model holds; calls under way and later ones end with `PHOTONC_CANCELLED`.
//
// # Safety
// `model` is null or a model.
enum photonc_status photonc_model_close(const struct photonc_model *model);

// Frees a model; streams and trajectories of it may live on, and hold what they need. Null is nothing.
//
// # Safety
// `model` is null or a model that nobody frees again.
void photonc_model_free(struct photonc_model *model);

// How many prompts there are.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_outputs_count(const struct photonc_outputs *outputs, size_t *count);

// How many sequences a prompt has.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_outputs_sequences(const struct photonc_outputs *outputs,
                                              size_t prompt,
                                              size_t *count);

// A sequence of a prompt; `sequence->struct_size` is set before.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_outputs_get(const struct photonc_outputs *outputs,
                                        size_t prompt,
                                        size_t number,
                                        struct photonc_sequence *sequence);

// Log-probabilities of a prompt's tokens, if they were asked for; they live as long as the outputs.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_outputs_prompt_logprobs(const struct photonc_outputs *outputs,
                                                    size_t prompt,
                                                    const struct photonc_token_logprobs **logprobs,
                                                    size_t *count);

// How many states were kept of a prompt, if `return_states` asked for them.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_outputs_states(const struct photonc_outputs *outputs,
                                           size_t prompt,
                                           size_t *count);

// A state of a prompt, by its place among those that were kept; `state->struct_size` is set before.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_outputs_state(const struct photonc_outputs *outputs,
                                          size_t prompt,
                                          size_t number,
                                          struct photonc_state *state);

// Frees outputs. Null is nothing.
//
// # Safety
// `outputs` is null or outputs that nobody frees again.
void photonc_outputs_free(struct photonc_outputs *outputs);

// Fills options with the defaults.
//
// # Safety
// `options` is null or can be written.
void photonc_load_options_init(struct photonc_load_options *options);

// Fills parameters with the defaults.
//
// # Safety
// `params` is null or can be written.
void photonc_sampling_params_init(struct photonc_sampling_params *params);

// Fills options with the defaults.
//
// # Safety
// `options` is null or can be written.
void photonc_generate_options_init(struct photonc_generate_options *options);

// The natural logarithm of the probability of each of `count` tokens, given those before it, the first included.
//
// # Safety
// Pointers are null or as the header says: `logprobs` has room for `count` numbers.
enum photonc_status photonc_score(const struct photonc_model *model,
                                  const int64_t *token_ids,
                                  size_t count,
                                  double *logprobs);

// The log-probability of each of `count` tokens given those before it, the first included, its rank, and the `top` most probable
// tokens at its place, 20 at most. The scores are freed with `photonc_scores_free`.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_score_tokens(const struct photonc_model *model,
                                         const int64_t *token_ids,
                                         size_t count,
                                         uint32_t top,
                                         struct photonc_scores **scores);

// By place; they live as long as the scores.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_scores_get(const struct photonc_scores *scores,
                                       const struct photonc_token_logprobs **logprobs,
                                       size_t *count);

// Frees scores. Null is nothing.
//
// # Safety
// `scores` is null or scores that nobody frees again.
void photonc_scores_free(struct photonc_scores *scores);

// Logits `[count, vocab_size]` of `count` tokens, row-major, each token's from what stands before it. They are computed by a
// second copy of the model beside the one that generates. `needed` is told how many there are.
//
// # Safety
// Pointers are null or as the header says: `logits` has room for `capacity` numbers.
enum photonc_status photonc_score_logits(const struct photonc_model *model,
                                         const int64_t *token_ids,
                                         size_t count,
                                         float *logits,
                                         size_t capacity,
                                         size_t *needed);

// Begins to generate behind prompts. `params` and `options` may be null.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_stream_start(const struct photonc_model *model,
                                         const struct photonc_prompt *prompts,
                                         size_t prompts_count,
                                         const struct photonc_sampling_params *params,
                                         const struct photonc_generate_options *options,
                                         struct photonc_stream **stream);

// What comes next, waited for no longer than `timeout_ms`. A piece is written to `piece`, whose `struct_size` is set before; its
// pointers live until the next call for this stream.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_stream_next(const struct photonc_stream *stream,
                                        uint32_t timeout_ms,
                                        struct photonc_piece *piece,
                                        enum photonc_next *next);

// Ends every sequence of a stream at its next burst, from any thread and without waiting: a call under way in another thread, or
// else the next one, says `PHOTONC_CANCELLED` behind what had come.
//
// # Safety
// `stream` is null or a stream.
enum photonc_status photonc_stream_cancel(const struct photonc_stream *stream);

// Cancels what is left and frees the stream. Null is nothing.
//
// # Safety
// `stream` is null or a stream that nobody frees again.
void photonc_stream_free(struct photonc_stream *stream);

// Generates behind prompts and tells `on_piece` of tokens as they are drawn; returns when all is done, and says
// `PHOTONC_CANCELLED` where `on_piece` cancelled.
//
// # Safety
// Pointers are null or as the header says; `user_data` is what `on_piece` makes of it.
enum photonc_status photonc_generate_with(const struct photonc_model *model,
                                          const struct photonc_prompt *prompts,
                                          size_t prompts_count,
                                          const struct photonc_sampling_params *params,
                                          const struct photonc_generate_options *options,
                                          photonc_on_piece on_piece,
                                          void *user_data);

// The tokens of a text, with the marks that the tokenizer puts around one if `add_special_tokens` is not 0. `count` is told how
// many there are.
//
// # Safety
// Pointers are null or as the header says: `token_ids` has room for `capacity` ids.
enum photonc_status photonc_encode(const struct photonc_model *model,
                                   const char *words,
                                   uint32_t add_special_tokens,
                                   int64_t *token_ids,
                                   size_t capacity,
                                   size_t *count);

// The text of tokens, in memory that is freed with `photonc_text_free`; special tokens have none.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_decode(const struct photonc_model *model,
                                   const int64_t *token_ids,
                                   size_t count,
                                   char **words);

// The text of a conversation by the model's chat template, ready for the assistant's answer: `messages` and `tools`, which may be
// null, are JSON as transformers has them. It is encoded without special tokens, and freed with `photonc_text_free`.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_chat(const struct photonc_model *model,
                                 const char *messages,
                                 const char *tools,
                                 char **words);

// Frees a text that this library made. Null is nothing.
//
// # Safety
// `words` is null or such a text, which nobody frees again.
void photonc_text_free(char *words);

// The trajectory of a prompt under RecGen, empty at first. It lives in a second copy of the model beside the one that generates.
// `params` may be null; of them only how tokens are drawn counts.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_trajectory_new(const struct photonc_model *model,
                                           const struct photonc_prompt *from,
                                           const struct photonc_sampling_params *params,
                                           struct photonc_trajectory **trajectory);

// Goes on by so many meta-contexts; `count` is told how many there are then. It is computed again from the prompt; what was there
// stays.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_trajectory_advance(const struct photonc_trajectory *trajectory,
                                               size_t meta_contexts,
                                               size_t *count);

// Draws the tokens of meta-contexts `first` up to, but not with, `end`: as they are where `seed` is null, else with that seed.
// `count` is told how many tokens there are.
//
// # Safety
// Pointers are null or as the header says: `token_ids` has room for `capacity` ids.
enum photonc_status photonc_trajectory_expand(const struct photonc_trajectory *trajectory,
                                              size_t first,
                                              size_t end,
                                              const uint64_t *seed,
                                              int64_t *token_ids,
                                              size_t capacity,
                                              size_t *count);

// The same, drawn as sequence number `sequence` of a prompt: 0 is what `photonc_trajectory_expand` draws.
//
// # Safety
// As `photonc_trajectory_expand`.
enum photonc_status photonc_trajectory_expand_sequence(const struct photonc_trajectory *trajectory,
                                                       size_t first,
                                                       size_t end,
                                                       const uint64_t *seed,
                                                       uint64_t sequence,
                                                       int64_t *token_ids,
                                                       size_t capacity,
                                                       size_t *count);

// How far a trajectory is; `info->struct_size` is set before.
//
// # Safety
// Pointers are null or as the header says.
enum photonc_status photonc_trajectory_get_info(const struct photonc_trajectory *trajectory,
                                                struct photonc_trajectory_info *info);

// The tokens behind the prompt that were drawn while it was computed. `count` is told how many there are.
//
// # Safety
// Pointers are null or as the header says: `token_ids` has room for `capacity` ids.
enum photonc_status photonc_trajectory_tokens(const struct photonc_trajectory *trajectory,
                                              int64_t *token_ids,
                                              size_t capacity,
                                              size_t *count);

// Frees a trajectory. Null is nothing.
//
// # Safety
// `trajectory` is null or one that nobody frees again.
void photonc_trajectory_free(struct photonc_trajectory *trajectory);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PHOTONC_H */
