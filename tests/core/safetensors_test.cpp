// The safetensors reader and writer.
#include "core/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

namespace tandem {
namespace {

std::string file_of(std::string header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\1');
}

Safetensors parse(const std::string& file) {
  return Safetensors::parse(std::as_bytes(std::span(file)), nullptr, ErrorCode::invalid_engine);
}

void expect_damaged(const std::string& file, const std::string& part) {
  try {
    parse(file);
    ADD_FAILURE() << "accepted, expected: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_engine);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

std::string entry(const std::string& shape, int begin, int end, const std::string& dtype = "U8") {
  return R"({"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[)" + std::to_string(begin) + "," + std::to_string(end) +
         "]}";
}

TEST(Safetensors, ReadsWhatItWrites) {
  const std::filesystem::path path = std::filesystem::temp_directory_path() / "tandem_safetensors_test.safetensors";
  const std::vector<std::pair<std::string, Tensor>> tensors = {{"a", Tensor::of(DType::f32, {2, 2}, std::vector<double>{1, 2, 3, 4})},
                                                               {"none", Tensor(DType::f16, {0, 3})},
                                                               {"b/ü", Tensor::of(DType::boolean, {3}, std::vector<double>{1, 0, 1})}};
  write_safetensors(path, tensors, {{"tolerance", "0.1"}});
  const Safetensors file = Safetensors::open(path);
  EXPECT_EQ(file.metadata().at("tolerance"), "0.1");
  EXPECT_EQ(file.data_offset() % 8, 0u);
  ASSERT_EQ(file.entries().size(), 3u);
  for (const auto& [name, tensor] : tensors) {
    EXPECT_EQ(file.tensor(name).shape(), tensor.shape());
    EXPECT_EQ(file.tensor(name).dtype(), tensor.dtype());
    EXPECT_EQ(file.tensor(name).to_doubles(), tensor.to_doubles());
  }
  EXPECT_FALSE(file.has("c"));
  EXPECT_THROW(file.tensor("c"), Error);
  std::filesystem::remove(path);
}

TEST(Safetensors, RefusesDamage) {
  EXPECT_EQ(parse(file_of(R"({"a":)" + entry("[2,3]", 0, 6) + "}  ", 6)).tensor("a").count(), 6);
  expect_damaged("1234567", "too few");
  expect_damaged(file_of("{}", 0).substr(0, 9), "header of 2 bytes");
  expect_damaged(std::string(8, '\xff') + "{}", "header of");
  expect_damaged(file_of(" {}", 0), "brace");
  expect_damaged(file_of("{\"a\":", 0), "no JSON object");
  expect_damaged(file_of("{\"a\":" + std::string(100000, '['), 0), "nested");
  expect_damaged(file_of(R"({"a":)" + entry("[1]", 0, 1) + R"(,"a":)" + entry("[1]", 1, 2) + "}", 2), "twice");
  expect_damaged(file_of(R"({"a":)" + entry("[1]", 0, 1) + R"(,"b":)" + entry("[2]", 0, 2) + "}", 2), "overlap");
  expect_damaged(file_of(R"({"a":)" + entry("[1]", 1, 2) + "}", 2), "gap");
  expect_damaged(file_of(R"({"a":)" + entry("[1]", 0, 1) + "}", 2), "after its header");
  expect_damaged(file_of(R"({"a":)" + entry("[4]", 0, 4) + "}", 2), "after its header");
  expect_damaged(file_of(R"({"a":)" + entry("[3]", 0, 2) + "}", 2), "needs 3");
  expect_damaged(file_of(R"({"a":)" + entry("[-3]", 0, 2) + "}", 2), "whole numbers");
  expect_damaged(file_of(R"({"a":)" + entry("[4294967296,4294967296]", 0, 0) + "}", 0), "overflows");
  expect_damaged(file_of(R"({"a":)" + entry("[1]", 0, 1, "Q9") + "}", 1), "unknown dtype");
  expect_damaged(file_of(R"({"a":{"dtype":"U8"}})", 0), "needs dtype");
  expect_damaged(file_of(R"({"a":5})", 0), "needs dtype");
  expect_damaged(file_of(R"({"__metadata__":{"k":1}})", 0), "no string");
}

TEST(Safetensors, HeaderIsPaddedToTheAlignment) {
  const std::vector<SafetensorsItem> items = {{"w", DType::f32, {1024}}};
  EXPECT_EQ(safetensors_header(items, {}, 4096).size(), 4096u);
}

}  // namespace
}  // namespace tandem
