// Files that are damaged, hostile or outside of what is supported: one typed error each, nothing else.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "core/half.h"
#include "import/model_builder.h"

namespace tandem::testing {
namespace {

namespace fs = std::filesystem;
using Proto = onnx::TensorProto;

struct Folder {
  fs::path path = fs::temp_directory_path() / ("tandem_import_" + std::to_string(std::random_device{}()));
  Folder() { fs::create_directories(path / "model"); }
  ~Folder() { fs::remove_all(path); }
  void write(const std::string& name, const std::string& bytes) const { std::ofstream(path / name, std::ios::binary) << bytes; }
};

OnnxModel identity(int opset = 17, int ir = 8) {
  OnnxModel model(opset, ir);
  model.input("x", {"n"}).output("y").node("Abs", {"x"}, {"y"});
  return model;
}

TEST(Files, MissingEmptyAndCorrupt) {
  const Folder folder;
  folder.write("empty.onnx", "");
  folder.write("text.onnx", "this is no model at all");
  const auto code_of = [&](const std::string& name) {
    try {
      import_onnx(folder.path / name);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(name), std::string::npos) << error.what();
      return error.code();
    }
    return ErrorCode::internal;
  };
  EXPECT_EQ(code_of("none.onnx"), ErrorCode::io);
  EXPECT_EQ(code_of("model"), ErrorCode::io);
  EXPECT_EQ(code_of("empty.onnx"), ErrorCode::invalid_model);
  EXPECT_EQ(code_of("text.onnx"), ErrorCode::invalid_model);
}

TEST(Versions, OutsideTheRangeNameIt) {
  for (const int opset : {7, 24}) EXPECT_NO_THROW(identity(opset).import());
  for (const int opset : {6, 25}) expect_refused(identity(opset), ErrorCode::unsupported, {"opset " + std::to_string(opset), "7 to 24"});
  for (const int ir : {2, 15}) expect_refused(identity(17, ir), ErrorCode::unsupported, {"IR version " + std::to_string(ir), "3 to 14"});
}

TEST(Ops, UnknownOnesAreNamedWithDomainOpsetAndNode) {
  OnnxModel model;
  model.input("x", {"n"}).output("y");
  model.node("Mystery", {"x"}, {"y"}, "layer/odd");
  expect_refused(model, ErrorCode::unsupported, {"[Mystery \"layer/odd\"]", "op Mystery", "'ai.onnx'", "opset 17", "express it"});
  model.graph().mutable_node(0)->set_domain("com.microsoft");
  expect_refused(model, ErrorCode::unsupported, {"'com.microsoft'", "standard operators"});
}

TEST(Ops, ErrorsOfRulesAndInferenceNameTheNode) {
  OnnxModel model;
  model.input("x", {"2", "3"}).output("y");
  model.node("MatMul", {"x", "x"}, {"y"}, "product");
  expect_refused(model, ErrorCode::invalid_model, {"MatMul \"product\""});
  OnnxModel missing;
  missing.output("y").node("Abs", {"nowhere"}, {"y"}, "a");
  expect_refused(missing, ErrorCode::invalid_model, {"Abs \"a\"", "'nowhere' is written by no node"});
  OnnxModel absent;
  absent.output("y").node("Abs", {""}, {"y"}, "a");
  expect_refused(absent, ErrorCode::invalid_model, {"Abs \"a\"", "missing"});
}

TEST(Inputs, OfUnknownRankOrTypeAreRefused) {
  OnnxModel model = identity();
  model.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->clear_shape();
  expect_refused(model, ErrorCode::unsupported, {"'x' has no rank"});
  OnnxModel text = identity();
  text.graph().mutable_input(0)->mutable_type()->mutable_tensor_type()->set_elem_type(Proto::STRING);
  expect_refused(text, ErrorCode::unsupported, {"input 'x'"});
  OnnxModel sequence = identity();
  sequence.graph().mutable_input(0)->mutable_type()->mutable_sequence_type();
  expect_refused(sequence, ErrorCode::unsupported, {"'x' is no tensor"});
}

// A model whose output is its initialiser `w`.
OnnxModel holder(Proto tensor) {
  OnnxModel model;
  tensor.set_name("w");
  *model.graph().add_initializer() = std::move(tensor);
  model.output("w");
  return model;
}

Tensor held(const Proto& tensor) {
  const auto module = holder(tensor).import();
  return *constant_of(module->main().outputs()[0].value);
}

Proto typed(int type, const std::vector<std::int64_t>& dims) {
  Proto t;
  t.set_data_type(type);
  for (const std::int64_t d : dims) t.add_dims(d);
  return t;
}

TEST(Initialisers, TypedDataOfEveryKind) {
  Proto f64 = typed(Proto::DOUBLE, {2}), u32 = typed(Proto::UINT32, {2}), u64 = typed(Proto::UINT64, {1});
  f64.add_double_data(1e300), f64.add_double_data(-2);
  u32.add_uint64_data(4000000000u), u32.add_uint64_data(1);
  u64.add_uint64_data(1ull << 40);
  EXPECT_EQ(held(f64).to_doubles(), (std::vector<double>{1e300, -2}));
  EXPECT_EQ(held(u32).to_ints(), (std::vector<std::int64_t>{4000000000, 1}));
  EXPECT_EQ(held(u64).to_ints(), (std::vector<std::int64_t>{1ll << 40}));
  const auto small = [](int type, std::vector<int> numbers, std::int64_t count) {
    Proto t = typed(type, {count});
    for (const int n : numbers) t.add_int32_data(n);
    return held(t).to_doubles();
  };
  EXPECT_EQ(small(Proto::INT8, {-3, 100}, 2), (std::vector<double>{-3, 100}));
  EXPECT_EQ(small(Proto::UINT16, {65535}, 1), (std::vector<double>{65535}));
  EXPECT_EQ(small(Proto::INT16, {-5}, 1), (std::vector<double>{-5}));
  EXPECT_EQ(small(Proto::INT32, {-70000}, 1), (std::vector<double>{-70000}));
  EXPECT_EQ(small(Proto::BOOL, {1, 0}, 2), (std::vector<double>{1, 0}));
  EXPECT_EQ(small(Proto::FLOAT16, {float_to_f16(1.5f), float_to_f16(-2)}, 2), (std::vector<double>{1.5, -2}));
  EXPECT_EQ(small(Proto::BFLOAT16, {float_to_bf16(3)}, 1), (std::vector<double>{3}));
  EXPECT_EQ(small(Proto::FLOAT8E4M3FN, {float_to_f8e4m3(0.5f)}, 1), (std::vector<double>{0.5}));
  EXPECT_EQ(small(Proto::INT4, {0x7f, 0x21}, 4), (std::vector<double>{-1, 7, 1, 2}));
}

TEST(Initialisers, OfTheWrongSizeAreNamed) {
  Proto raw = typed(Proto::FLOAT, {3});
  raw.set_raw_data("12345678");
  expect_refused(holder(raw), ErrorCode::invalid_model, {"tensor 'w'", "8 bytes", "12"});
  Proto few = typed(Proto::FLOAT, {1ll << 40});
  few.add_float_data(1);
  expect_refused(holder(few), ErrorCode::invalid_model, {"tensor 'w'", "1 numbers"});
  expect_refused(holder(typed(Proto::FLOAT, {1ll << 40, 1ll << 40})), ErrorCode::invalid_model, {"tensor 'w'"});
  expect_refused(holder(typed(Proto::FLOAT, {-1})), ErrorCode::invalid_model, {"tensor 'w'"});
  expect_refused(holder(typed(Proto::STRING, {1})), ErrorCode::unsupported, {"tensor 'w'", "strings"});
  expect_refused(holder(typed(Proto::COMPLEX64, {1})), ErrorCode::unsupported, {"tensor 'w'"});
}

Proto external(const std::string& location, const std::string& offset = "", const std::string& length = "") {
  Proto t = typed(Proto::FLOAT, {2});
  t.set_data_location(Proto::EXTERNAL);
  const auto add = [&](const std::string& key, const std::string& value) {
    if (value.empty()) return;
    t.add_external_data()->set_key(key);
    t.mutable_external_data(t.external_data_size() - 1)->set_value(value);
  };
  add("location", location), add("offset", offset), add("length", length);
  return t;
}

TEST(ExternalData, IsReadFromTheModelsFolder) {
  const Folder folder;
  folder.write("model/w.bin", std::string("\0\0\0\0\0\0\x80\x3f\0\0\0\x40", 12));
  const auto module = holder(external("w.bin", "4", "8")).import({}, folder.path / "model");
  EXPECT_EQ(module->source("w").to_doubles(), (std::vector<double>{1, 2}));
}

TEST(ExternalData, MissingOutsideOrTooShortIsRefused) {
  const Folder folder;
  folder.write("secret.bin", "12345678");
  folder.write("model/short.bin", "1234567");
  fs::create_symlink(folder.path / "secret.bin", folder.path / "model/link.bin");
  const auto refused = [&](const Proto& tensor, ErrorCode code, const std::string& part) {
    expect_refused(holder(tensor), code, {"tensor 'w'", part}, {}, folder.path / "model");
  };
  refused(external("none.bin"), ErrorCode::io, "missing");
  refused(external("../secret.bin"), ErrorCode::invalid_model, "outside");
  refused(external((folder.path / "secret.bin").string()), ErrorCode::invalid_model, "outside");
  refused(external((folder.path / "model/short.bin").string()), ErrorCode::invalid_model, "outside");
  refused(external("link.bin"), ErrorCode::invalid_model, "outside");
  refused(external("."), ErrorCode::invalid_model, "outside");
  refused(external(""), ErrorCode::invalid_model, "without a file name");
  refused(external("short.bin"), ErrorCode::invalid_model, "too short");
  refused(external("short.bin", "18446744073709551615"), ErrorCode::invalid_model, "too short");
  refused(external("short.bin", "x"), ErrorCode::invalid_model, "offset");
  refused(external("short.bin", "0", "4"), ErrorCode::invalid_model, "needs 8");
}

// Damages a real model in many places; whatever comes must be a module or an Error.
TEST(Hostile, FlippedAndCutModelsNeverCrash) {
  std::ifstream file(fs::path(TANDEM_MODELS) / "sdpa_causal_legacy.onnx", std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(file)), {});
  ASSERT_GT(good.size(), 1000u);
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string bad = good;
    if (round % 5 == 0) bad.resize(random() % bad.size());
    for (unsigned i = 0; i < 1 + random() % 4 && !bad.empty(); ++i) bad[random() % bad.size()] = static_cast<char>(random());
    try {
      import_onnx(std::as_bytes(std::span(bad)), "/nonexistent");
    } catch (const Error& error) {
      EXPECT_NE(error.code(), ErrorCode::internal) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

}  // namespace
}  // namespace tandem::testing
