#include "plan/engine_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <set>

#include "core/check.h"
#include "core/digest.h"
#include "plan/engine_layout.h"
#include "plan/random_plan.h"
#include "support/temporary_folder.h"

namespace tandem {
namespace {

using testing::small_ops;
using testing::small_plan;
using testing::small_slice;
using testing::TemporaryFolder;

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_file(const std::filesystem::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

std::string engine_bytes(const WriteOptions& options = {}) {
  const TemporaryFolder folder;
  write_engine(folder.path() / "e.tandem", small_plan(), small_slice, options);
  return read_file(folder.path() / "e.tandem");
}

EngineFile parse(const std::string& bytes, const std::string& device = "cpu") {
  const auto copy = std::make_shared<const std::string>(bytes);
  return EngineFile::parse(std::as_bytes(std::span(*copy)), copy, small_ops(), device);
}

// What the reader says of these bytes; empty if it accepts them.
std::string complaint(const std::string& bytes, const std::string& device = "cpu") {
  try {
    parse(bytes, device);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_engine) << error.what();
    return error.message();
  }
}

// A file with another header, whose length and digest are right.
std::string with_header(const std::string& file, std::string header) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  const std::string key = fmt::format("\"{}\":\"", kDigestKey);
  if (const std::size_t at = header.find(key); at != std::string::npos) {
    header.replace(at + key.size(), 16, hex_digest(0));
    header.replace(at + key.size(), 16, hex_digest(text_digest(header)));
  }
  const std::uint64_t now = header.size();
  return std::string(reinterpret_cast<const char*>(&now), sizeof now) + header + file.substr(sizeof length + length);
}

std::string header_of(const std::string& file) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  return file.substr(sizeof length, length);
}

// The header with one piece of text replaced by another of any length; the padding makes up for it.
std::string edited(const std::string& file, const std::string& from, const std::string& to) {
  std::string header = header_of(file);
  const std::size_t at = header.find(from), size = header.size();
  EXPECT_NE(at, std::string::npos) << from;
  header.replace(at, from.size(), to);
  header.erase(header.find_last_not_of(' ') + 1);
  header.append(size > header.size() ? size - header.size() : 0, ' ');
  return with_header(file, header);
}

TEST(EngineFile, BringsBackPlanAndSlices) {
  const TemporaryFolder folder;
  const Plan plan = small_plan();
  std::multiset<std::string> asked;
  write_engine(folder.path() / "e.tandem", plan, [&](const PlanWeight& w, int rank) {
    asked.insert(slice_name(w, plan.mesh, rank));
    return small_slice(w, rank);
  });
  EXPECT_EQ(asked, (std::multiset<std::string>{"big", "norm", "packed", "q@tp=0", "q@tp=1", "table"}));
  EXPECT_EQ(folder.file_count(), 1u);
  const EngineFile engine = EngineFile::open(folder.path() / "e.tandem", small_ops());
  EXPECT_EQ(to_json(engine.plan()), to_json(plan));
  EXPECT_TRUE(engine.has_weights());
  EXPECT_EQ(engine.metadata().at("tandem.mesh"), "tp=2");
  EXPECT_EQ(engine.metadata().at("tandem.inputs"), "main.x: f32[B,64]\n");
  EXPECT_EQ(engine.metadata().at("tandem.outputs"), "main.embedding: f32[B,48]{;partial(tp:sum)}\n");
  EXPECT_EQ(engine.weight_bytes(0), 48u * 2 + 32 * 48 * 4 + 5 * 8 + 3 + 200 * 100 * 4);
  for (int rank = 0; rank < 2; ++rank)
    for (const PlanWeight& w : plan.weights) {
      const Tensor expected = small_slice(w, rank), got = engine.map_weight(w, rank);
      EXPECT_TRUE(equal(AttributeValue(expected), AttributeValue(got))) << w.name;
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(got.data()) % 64, 0u) << w.name;
      EXPECT_TRUE(w.name != "big" || reinterpret_cast<std::uintptr_t>(got.data()) % 4096 == 0);
    }
}

std::shared_ptr<const std::vector<std::byte>> code_of(const std::string& bytes) {
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  return std::make_shared<const std::vector<std::byte>>(data, data + bytes.size());
}

Plan plan_with_code() {
  Plan plan = small_plan();
  plan.code = {stored_code("0123456789abcdef-17", 90, code_of("machine code")),
               stored_code("0123456789abcdef-17", 80, code_of("of another kind")),
               stored_code("fedcba9876543210-99", 90, code_of(std::string(100'000, 'x')))};
  return plan;
}

std::string bytes_of(const Plan& plan) {
  std::string bytes;
  write_engine([&](std::span<const std::byte> part) { bytes.append(reinterpret_cast<const char*>(part.data()), part.size()); }, plan,
               small_slice);
  return bytes;
}

TEST(EngineFile, CodeComesBackWithWeightsAndWithout) {
  const Plan plan = plan_with_code();
  for (const bool weights : {true, false}) {
    std::string bytes;
    write_engine([&](std::span<const std::byte> part) { bytes.append(reinterpret_cast<const char*>(part.data()), part.size()); }, plan,
                 small_slice, {.weights = weights});
    const EngineFile engine = parse(bytes);
    EXPECT_EQ(to_json(engine.plan()), to_json(plan));
    ASSERT_EQ(engine.plan().code.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(*engine.plan().code[i].bytes, *plan.code[i].bytes);
    // A plan that was read is written again as it was.
    std::string again;
    write_engine([&](std::span<const std::byte> part) { again.append(reinterpret_cast<const char*>(part.data()), part.size()); },
                 engine.plan(), small_slice, {.weights = weights});
    EXPECT_EQ(again, bytes);
  }
  Plan other = plan;
  other.code.clear();
  EXPECT_EQ(digest(other), digest(plan));  // ranks of several kinds of GPU may have different code
}

TEST(EngineFile, CodeThatIsNotWhatThePlanSaysIsRefused) {
  const std::string file = bytes_of(plan_with_code());
  std::string other = file;
  other[other.find("machine code")] = 'M';
  EXPECT_NE(complaint(other).find("digest of '.tandem/kernel/0'"), std::string::npos) << complaint(other);
  EXPECT_EQ(complaint(edited(file, "\".tandem/kernel/1\"", "\".tandem/kernel/7\"")), "the tensor '.tandem/kernel/1' is missing");
  EXPECT_NE(complaint(edited(file, "\".pad/0\"", "\".tandem/kernel/3\"")).find("unknown to the plan"), std::string::npos);
  const std::vector<std::pair<std::function<void(StoredCode&)>, std::string>> wrong = {
      {[](StoredCode& c) { c.text.clear(); }, "code of a text"},
      {[](StoredCode& c) { c.text = std::string(65, 'a'); }, "code of a text"},
      {[](StoredCode& c) { c.sm = 0; }, "code for sm_0"},
      {[](StoredCode& c) { c.sm = 80; }, "two pieces of code"},
      {[](StoredCode& c) { c.size = 0; }, "code of 0 bytes"},
      {[](StoredCode& c) { c.size = std::int64_t{1} << 40; }, "code of 1099511627776 bytes"},
  };
  for (const auto& [change, message] : wrong) {
    Plan plan = plan_with_code();
    change(plan.code[0]);
    try {
      plan_from_json(to_json(plan), small_ops());
      ADD_FAILURE() << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_engine);
      EXPECT_NE(error.message().find(message), std::string::npos) << error.message();
    }
  }
}

TEST(EngineFile, ATensorOutlivesItsFile) {
  const TemporaryFolder folder;
  write_engine(folder.path() / "e", small_plan(), small_slice);
  Tensor kept;
  {
    const EngineFile engine = EngineFile::open(folder.path() / "e", small_ops());
    kept = engine.map_weight(engine.plan().weights[4], 0);
  }
  std::filesystem::remove(folder.path() / "e");
  EXPECT_TRUE(equal(AttributeValue(kept), AttributeValue(small_slice(small_plan().weights[4], 0))));
}

TEST(EngineFile, WithoutWeightsOnlyTheFrozenOnesStay) {
  const std::string bytes = engine_bytes({.weights = false});
  const EngineFile engine = parse(bytes);
  EXPECT_FALSE(engine.has_weights());
  EXPECT_EQ(engine.weight_bytes(0), 40u);
  const auto& weights = engine.plan().weights;
  EXPECT_EQ(engine.map_weight(weights[2], 1).count(), 5);
  try {
    engine.map_weight(weights[1], 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "the file holds no slice 'q@tp=1': it was written without weights");
  }
  EXPECT_LT(bytes.size(), 16384u);
}

TEST(EngineFile, TheSafetensorsPackageOpensIt) {
  const TemporaryFolder folder;
  const std::string file = (folder.path() / "e.tandem").string(), python = TANDEM_TEST_PYTHON;
  if (std::system((python + " -c 'import safetensors, numpy' 2>/dev/null").c_str()) != 0) GTEST_SKIP() << "no Python with safetensors";
  write_engine(file, small_plan(), small_slice);
  EXPECT_EQ(std::system((python + " " + TANDEM_TEST_SOURCE + "/plan/open_with_safetensors.py " + file).c_str()), 0);
}

TEST(EngineFile, EveryFlippedBitOfHeaderAndPlanIsSeen) {
  std::string bytes = engine_bytes();
  const std::size_t end = sizeof(std::uint64_t) + header_of(bytes).size() + to_json(small_plan()).size();
  for (std::size_t at = 0; at < end; ++at) {
    const char mask = static_cast<char>(1 << (at * 5 % 8));
    bytes[at] = static_cast<char>(bytes[at] ^ mask);
    EXPECT_NE(complaint(bytes), "") << "byte " << at;
    bytes[at] = static_cast<char>(bytes[at] ^ mask);
  }
  EXPECT_EQ(complaint(bytes), "");
}

TEST(EngineFile, EveryTruncationIsSeen) {
  const std::string bytes = engine_bytes();
  for (std::size_t size = 0; size < bytes.size(); size += size < 64 ? 1 : 997) EXPECT_NE(complaint(bytes.substr(0, size)), "") << size;
  EXPECT_NE(complaint(bytes.substr(0, bytes.size() - 1)), "");
  EXPECT_NE(complaint(bytes + "x"), "");
}

struct Edit {
  std::string from, to, message;
};

TEST(EngineFile, SaysWhatItExpectedAndWhatItFound) {
  const std::string good = engine_bytes();
  EXPECT_EQ(complaint(with_header(good, header_of(good))), "");
  const std::vector<Edit> rows = {
      {"\"tandem.format\":\"1\"", "\"tandem.format\":\"2\"", "format version is '2', expected '1'"},
      {"\"tandem.device\":\"cpu\"", "\"tandem.device\":\"cuda\"", "device is 'cuda', expected 'cpu'"},
      {"\"tandem.mesh\":\"tp=2\"", "\"tandem.mesh\":\"tp=4\"", "mesh of the plan is 'tp=2', expected 'tp=4'"},
      {"\"tandem.fingerprint\":\"", "\"tandem.fingerprint\":\"x", "fingerprint of the plan is "},
      {"\"tandem.plan_digest\":\"", "\"tandem.plan_digest\":\"x", "digest of the plan is "},
      {"\"tandem.weights\":\"all\"", "\"tandem.weights\":\"some\"", "'tandem.weights' is 'some', expected all or frozen"},
      {"\"tandem.format\"", "\"other.format\"", "not an engine: a safetensors file without 'tandem.format'"},
      {"\"q@tp=1\"", "\"q@tp=2\"", "the slice 'q@tp=1' is missing"},
      {"\"F16\",\"shape\":[48]", "\"BF16\",\"shape\":[48]", "slice 'norm' is bf16[48], expected f16[48]"},
      {"\"shape\":[48]", "\"shape\":[6,8]", "slice 'norm' is f16[6,8], expected f16[48]"},
      {".pad/0", "extra", "tensor 'extra' is unknown to the plan"},
      {".tandem/plan", ".tandem/plam", "the file has no tensor '.tandem/plan' of bytes"},
      {"\"shape\":[48]", "\"shape\":[4611686018427387904,48]", "tensor 'norm': "},
      {"\"shape\":[48]", "\"shape\":[[[[[[48]]]]]]", "safetensors header is nested more than 4 deep"},
      {"\"shape\":[48]", "\"shape\":[-48]", "tensor 'norm': extents and offsets must be whole numbers"},
      {"\"F16\"", "\"F15\"", "tensor 'norm' has the unknown dtype 'F15'"},
      {"\"tandem.ranks\":\"2\"", "\"tandem.ranks\":2", "safetensors metadata 'tandem.ranks' is no string"},
  };
  for (const Edit& row : rows) {
    const std::string message = complaint(edited(good, row.from, row.to));
    EXPECT_EQ(message.substr(0, row.message.size()), row.message) << row.to;
  }
  EXPECT_EQ(complaint(good, "cuda"), "device is 'cpu', expected 'cuda'");
  EXPECT_EQ(complaint(edited(good, "\"tandem.device\":\"cpu\"", "\"tandem.device\":\"cuda\""), ""),
            "device of the plan is 'cpu', expected 'cuda'");
}

// Offsets that overlap, leave a gap or lie outside.
TEST(EngineFile, RangesMustTileTheData) {
  const std::string good = engine_bytes();
  const Safetensors file = Safetensors::parse(std::as_bytes(std::span(good)), nullptr);
  const SafetensorsEntry norm = file.entries().at("norm");
  const auto moved = [&](std::int64_t by) {
    return complaint(edited(good, fmt::format("[{},{}]", norm.begin, norm.end),
                            fmt::format("[{},{}]", static_cast<std::int64_t>(norm.begin) + by, static_cast<std::int64_t>(norm.end) + by)));
  };
  EXPECT_NE(moved(-64).find("an overlap"), std::string::npos) << moved(-64);
  EXPECT_NE(moved(64).find("a gap"), std::string::npos) << moved(64);
  EXPECT_NE(moved(1 << 30), "");
  EXPECT_NE(moved(-(std::int64_t{1} << 30)), "");
}

TEST(EngineFile, OtherFilesAreNoEngines) {
  std::string noise(5000, '\0');
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>(i * i * 31 + i);
  EXPECT_EQ(complaint(noise).substr(0, 13), "not an engine");
  EXPECT_EQ(complaint("").substr(0, 13), "not an engine");
  EXPECT_EQ(complaint(read_file(std::string(TANDEM_TEST_SOURCE) + "/models/mlp_legacy.onnx")).substr(0, 13), "not an engine");
  EXPECT_EQ(complaint(read_file(std::string(TANDEM_TEST_SOURCE) + "/models/mlp_legacy.safetensors")).substr(0, 13), "not an engine");
  const TemporaryFolder folder;
  for (const char* name : {"absent", "."}) {
    try {
      EngineFile::open(folder.path() / name, small_ops());
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::io) << error.what();
    }
  }
  write_file(folder.path() / "short", "abc");
  try {
    EngineFile::open(folder.path() / "short", small_ops());
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_engine);
    EXPECT_NE(error.message().find("short: not an engine"), std::string::npos) << error.message();
  }
}

// Whatever goes wrong while writing: the old file stays, and nothing else does.
void expect_untouched(const TemporaryFolder& folder, ErrorCode code, const SliceSource& source) {
  write_file(folder.path() / "e", "before");
  try {
    write_engine(folder.path() / "e", small_plan(), source);
    ADD_FAILURE() << "written";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
  }
  EXPECT_EQ(read_file(folder.path() / "e"), "before");
  EXPECT_EQ(folder.file_count(), 1u);
}

TEST(EngineFile, AFullDiskLeavesNoHalfFile) {
  const TemporaryFolder folder;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  for (const rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{5000}, rlim_t{90000}}) {
    rlimit small{limit, before.rlim_max};
    const TemporaryFolder target;
    write_file(target.path() / "e", "before");
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    ErrorCode code = ErrorCode::internal;
    try {
      write_engine(target.path() / "e", small_plan(), small_slice);
    } catch (const Error& error) {
      code = error.code();
    }
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(code, ErrorCode::io) << limit;
    EXPECT_EQ(read_file(target.path() / "e"), "before");
    EXPECT_EQ(target.file_count(), 1u);
  }
  std::signal(SIGXFSZ, handler);
}

TEST(EngineFile, AWrongSliceOrAFailingSourceLeavesNoHalfFile) {
  const TemporaryFolder folder;
  expect_untouched(folder, ErrorCode::mismatch, [](const PlanWeight& w, int) { return Tensor(DType::f32, w.shape); });
  expect_untouched(folder, ErrorCode::interrupted, [](const PlanWeight& w, int rank) -> Tensor {
    if (w.name == "packed") fail(ErrorCode::interrupted, "stopped");
    return small_slice(w, rank);
  });
}

TEST(EngineFile, WeightNamesThatClashAreRefused) {
  Plan plan = small_plan();
  plan.weights[0].name = "q@tp=1";
  const TemporaryFolder folder;
  EXPECT_THROW(write_engine(folder.path() / "e", plan, small_slice), Error);
  plan.weights[0].name = ".pad/0";
  EXPECT_THROW(write_engine(folder.path() / "e", plan, small_slice), Error);
  EXPECT_EQ(folder.file_count(), 0u);
}

TEST(EngineFile, PlacesThatCannotBeWritten) {
  const TemporaryFolder folder;
  for (const std::filesystem::path& path : {folder.path() / "no" / "folder", folder.path(), std::filesystem::path("/dev/full")}) {
    try {
      write_engine(path, small_plan(), small_slice);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::io) << error.what();
    }
  }
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

}  // namespace
}  // namespace tandem
