#include "import/onnx/tensor_reader.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/check.h"
#include "core/stored_bytes.h"
#include "ops/onnx_dtype.h"

namespace tandem::onnx_import {
namespace {

Shape shape_of(const onnx::TensorProto& proto) {
  if (proto.dims_size() > 64) fail(ErrorCode::invalid_model, "rank {}", proto.dims_size());
  Shape shape(proto.dims().begin(), proto.dims().end());
  element_count(shape);  // refuses negative extents and overflow
  return shape;
}

// Memory of somebody else where the kernels may read it in place, else a copy.
Tensor view(DType dtype, const Shape& shape, const std::byte* data, std::shared_ptr<const void> owner) {
  const auto align = static_cast<std::uintptr_t>(std::max(1, bits(dtype) / 8));
  if (reinterpret_cast<std::uintptr_t>(data) % align == 0) return Tensor(dtype, shape, data, std::move(owner));
  Tensor copy(dtype, shape);
  if (copy.size_bytes() != 0) std::memcpy(copy.mutable_data(), data, copy.size_bytes());
  return copy;
}

// Typed fields hold one number per element; 16-bit floats as their bits, 4-bit integers two to a number.
template <typename Field>
Tensor from_typed(const Field& field, DType dtype, const Shape& shape) {
  const std::int64_t count = element_count(shape);
  const bool bitwise = dtype == DType::f16 || dtype == DType::bf16 || bits(dtype) <= 8;
  const std::int64_t per_number = bits(dtype) == 4 ? 2 : 1;
  if (field.size() != (count + per_number - 1) / per_number)
    fail(ErrorCode::invalid_model, "{} numbers given for {}{}", field.size(), to_string(dtype), to_string(shape));
  Tensor out(dtype, shape);
  std::byte* to = out.mutable_data();
  const std::int64_t size = std::max(8, bits(dtype)) / 8;
  for (int i = 0; i < field.size(); ++i) {
    if (bitwise) {
      const auto number = static_cast<std::uint64_t>(field.Get(i));
      std::memcpy(to + i * size, &number, static_cast<std::size_t>(size));  // little endian
    } else if (is_float(dtype)) {
      store_element(dtype, to, i, static_cast<double>(field.Get(i)));
    } else {
      store_int(dtype, to, i, static_cast<std::int64_t>(field.Get(i)));
    }
  }
  return out;
}

std::uint64_t parse_number(const std::string& text, std::string_view key) {
  std::uint64_t value = 0;
  const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || at != text.data() + text.size())
    fail(ErrorCode::invalid_model, "external data: {} '{}' is no number", key, text);
  return value;
}

}  // namespace

Tensor TensorReader::read(const onnx::TensorProto& proto) {
  try {
    return read_unnamed(proto);
  } catch (const Error& error) {
    const ErrorCode code = error.code() == ErrorCode::invalid_argument ? ErrorCode::invalid_model : error.code();
    fail(code, "tensor '{}': {}", proto.name(), error.message());
  }
}

Tensor TensorReader::read_unnamed(const onnx::TensorProto& proto) {
  if (proto.data_type() == onnx::TensorProto::STRING) fail(ErrorCode::unsupported, "strings are not supported");
  if (proto.has_segment()) fail(ErrorCode::unsupported, "segments are not supported");
  const DType dtype = dtype_from_onnx(proto.data_type());
  const Shape shape = shape_of(proto);
  if (proto.data_location() == onnx::TensorProto::EXTERNAL) return read_external(proto, dtype, shape);
  if (proto.has_raw_data()) {
    const std::size_t needed = stored_bytes(dtype, element_count(shape));
    if (proto.raw_data().size() != needed)
      fail(ErrorCode::invalid_model, "{} bytes given, {}{} needs {}", proto.raw_data().size(), to_string(dtype), to_string(shape), needed);
    return view(dtype, shape, reinterpret_cast<const std::byte*>(proto.raw_data().data()), model_);
  }
  switch (dtype) {
    case DType::f32: return from_typed(proto.float_data(), dtype, shape);
    case DType::f64: return from_typed(proto.double_data(), dtype, shape);
    case DType::i64: return from_typed(proto.int64_data(), dtype, shape);
    case DType::u32:
    case DType::u64: return from_typed(proto.uint64_data(), dtype, shape);
    default: return from_typed(proto.int32_data(), dtype, shape);
  }
}

Tensor TensorReader::read_external(const onnx::TensorProto& proto, DType dtype, const Shape& shape) {
  std::string location;
  std::uint64_t offset = 0;
  const std::uint64_t needed = stored_bytes(dtype, element_count(shape));
  for (const onnx::StringStringEntryProto& entry : proto.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") offset = parse_number(entry.value(), "offset");
    if (entry.key() == "length" && parse_number(entry.value(), "length") != needed)
      fail(ErrorCode::invalid_model, "external data of {} bytes, {}{} needs {}", entry.value(), to_string(dtype), to_string(shape), needed);
  }
  const auto file = external_file(location);
  if (offset > file->bytes().size() || needed > file->bytes().size() - offset)
    fail(ErrorCode::invalid_model, "external data file '{}' is too short: {} bytes, but {} at {} are needed", location,
         file->bytes().size(), needed, offset);
  return view(dtype, shape, file->bytes().data() + offset, file);
}

std::shared_ptr<const MappedFile> TensorReader::external_file(const std::string& location) {
  if (const auto found = files_.find(location); found != files_.end()) return found->second;
  if (location.empty() || location.find('\0') != std::string::npos) fail(ErrorCode::invalid_model, "external data without a file name");
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::canonical(folder_, error);
  if (error) fail(ErrorCode::io, "cannot open the model's folder {}: {}", folder_.string(), error.message());
  const std::filesystem::path path = std::filesystem::weakly_canonical(folder / location, error);  // follows links
  const auto [outside, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  if (error || std::filesystem::path(location).is_absolute() || outside != folder.end() || rest == path.end())
    fail(ErrorCode::invalid_model, "external data '{}' lies outside the model's folder", location);
  if (!std::filesystem::exists(path, error)) fail(ErrorCode::io, "external data file '{}' is missing from the model's folder", location);
  return files_[location] = MappedFile::open(path);
}

}  // namespace tandem::onnx_import
