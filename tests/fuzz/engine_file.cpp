// The engine file: damaged files are refused; with digests made right again, so that the readers behind them are reached too.
#include "plan/engine_file.h"

#include <cstring>
#include <fstream>

#include "core/digest.h"
#include "fuzz/fuzz.h"
#include "plan/engine_layout.h"
#include "plan/random_plan.h"
#include "support/temporary_folder.h"

namespace tandem::fuzz {
namespace {

using tandem::testing::small_ops;

std::string engine_of(const Plan& plan) {
  const tandem::testing::TemporaryFolder folder;
  write_engine(folder.path() / "e.tandem", plan, tandem::testing::small_slice);
  std::ifstream file(folder.path() / "e.tandem", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put_digest(std::string& header, const char* key, std::uint64_t digest) {
  const std::string start = fmt::format("\"{}\":\"", key);
  const std::size_t at = header.find(start);
  if (at != std::string::npos && at + start.size() + 16 <= header.size()) header.replace(at + start.size(), 16, hex_digest(digest));
}

// The same file with all digests right, as far as it can be read.
std::string resealed(const std::string& file) {
  std::uint64_t length = 0;
  if (file.size() < sizeof length) return file;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > file.size() - sizeof length) return file;
  std::string header = file.substr(sizeof length, length);
  refusing([&] {
    const Safetensors tensors = Safetensors::parse(std::as_bytes(std::span(file)), nullptr, ErrorCode::invalid_engine);
    const Tensor plan = tensors.tensor(std::string(kPlanTensor));
    const std::string_view json(reinterpret_cast<const char*>(plan.data()), plan.size_bytes());
    put_digest(header, kPlanDigestKey, text_digest(json));
    put_digest(header, kFingerprintKey, digest(plan_from_json(json, small_ops())));
  });
  put_digest(header, kDigestKey, 0);
  put_digest(header, kDigestKey, text_digest(header));
  return file.substr(0, sizeof length) + header + file.substr(sizeof length + length);
}

// Reads all that a rank would.
void read_engine(const std::string& bytes) {
  const auto copy = std::make_shared<const std::string>(bytes);
  const EngineFile engine = EngineFile::parse(std::as_bytes(std::span(*copy)), copy, small_ops(), "");
  unsigned sum = 0;
  for (int rank = 0; rank < std::min(engine.plan().world_size(), 8); ++rank)
    for (const PlanWeight& weight : engine.plan().weights) {
      if (!engine.has_weights() && !weight.frozen) continue;
      const Tensor slice = engine.map_weight(weight, rank);
      for (std::size_t i = 0; i < slice.size_bytes(); ++i) sum += static_cast<unsigned>(slice.data()[i]);
    }
  expect(sum != 0xffffffff, "a sum");  // keeps the reads
}

void read_plan(std::string_view json) {
  const Plan plan = plan_from_json(json, small_ops());
  const std::string text = to_json(plan);
  const Plan back = plan_from_json(text, small_ops());
  expect(to_json(back) == text && digest(back) == digest(plan), "a plan's JSON parses to another plan");
}

}  // namespace

// Whole files, and plans alone.
std::vector<std::string> own_seeds() {
  Plan coded = tandem::testing::small_plan();
  for (const int sm : {80, 90})
    coded.code.push_back(stored_code("0123456789abcdef-17", sm, std::make_shared<const std::vector<std::byte>>(100 + sm, std::byte{7})));
  std::vector<std::string> seeds = {engine_of(tandem::testing::small_plan()), engine_of(coded)};
  for (std::uint64_t seed = 0; seeds.size() < 40; ++seed)
    if (const auto plan = tandem::testing::random_plan(seed)) seeds.push_back(to_json(*plan));
  return seeds;
}
std::vector<std::string> seeds_in(std::string) { return {}; }

}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem::fuzz;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with('{')) {
    refusing([&] { read_plan(bytes); });
    return 0;
  }
  refusing([&] { read_engine(bytes); });
  refusing([&] { read_engine(resealed(bytes)); });
  return 0;
}
