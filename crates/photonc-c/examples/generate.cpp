// The same library from C++: handles that free themselves, a stream that is cancelled. Usage: generate BUNDLE [BACKEND]
#include <photonc.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

void check(photonc_status status) {
    if (status != PHOTONC_OK) throw std::runtime_error(photonc_last_error());
}

template <typename T, void (*Free)(T *)>
struct Freed {
    void operator()(T *handle) const { Free(handle); }
};
using Model = std::unique_ptr<photonc_model, Freed<photonc_model, photonc_model_free>>;
using Stream = std::unique_ptr<photonc_stream, Freed<photonc_stream, photonc_stream_free>>;
using Text = std::unique_ptr<char, Freed<char, photonc_text_free>>;

Model load(const char *bundle, const char *backend) {
    photonc_load_options options;
    photonc_load_options_init(&options);
    options.backend = backend;
    photonc_model *model = nullptr;
    check(photonc_load(bundle, &options, &model));
    return Model(model);
}

Stream start(const Model &model, const std::vector<std::int64_t> &ids, std::uint64_t max_tokens) {
    photonc_sampling_params params;
    photonc_sampling_params_init(&params);
    params.temperature = 0;
    params.max_tokens = max_tokens;
    const photonc_prompt prompt = {nullptr, ids.data(), ids.size()};
    photonc_stream *stream = nullptr;
    check(photonc_stream_start(model.get(), &prompt, 1, &params, nullptr, &stream));
    return Stream(stream);
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc < 2) return 2;
    const Model model = load(argv[1], argc > 2 ? argv[2] : nullptr);
    const Stream stream = start(model, {1, 2, 3}, 20);
    std::vector<std::int64_t> tokens;
    for (photonc_next next = PHOTONC_NEXT_WAITING; next != PHOTONC_NEXT_OVER;) {
        photonc_piece piece{};
        piece.struct_size = sizeof piece;
        check(photonc_stream_next(stream.get(), 1000, &piece, &next));
        if (next == PHOTONC_NEXT_PIECE) tokens.insert(tokens.end(), piece.token_ids, piece.token_ids + piece.token_ids_count);
    }
    std::printf("%zu tokens\n", tokens.size());
    // Freed while it runs: its requests end with it.
    const Stream dropped = start(model, {1, 2, 3}, 500);
    // Cancelled by another thread while this one waits.
    const Stream cancelled = start(model, {1, 2, 3}, 500);
    std::thread other([&cancelled] { photonc_stream_cancel(cancelled.get()); });
    photonc_status status = PHOTONC_OK;
    for (photonc_next next = PHOTONC_NEXT_WAITING; status == PHOTONC_OK && next != PHOTONC_NEXT_OVER;) {
        photonc_piece piece{};
        piece.struct_size = sizeof piece;
        status = photonc_stream_next(cancelled.get(), 60000, &piece, &next);
    }
    other.join();
    if (status != PHOTONC_CANCELLED) return 1;
    char *document = nullptr;
    check(photonc_inspect(argv[1], &document));
    const Text inspected(document);
    return tokens.size() == 20 && std::string(inspected.get()).find("\"manifest\"") != std::string::npos ? 0 : 1;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
