// Arrays in .safetensors and .npy files.
#include <cstring>
#include <string_view>

#include "api/run/engine_data.h"
#include "core/check.h"
#include "core/mapped_file.h"
#include "core/safetensors.h"

namespace tandem {
namespace {

DType npy_dtype(const std::string& word, const std::string& path) {
  static const std::map<std::string, DType> types = {
      {"<f4", DType::f32}, {"<f2", DType::f16}, {"<f8", DType::f64}, {"|i1", DType::i8},  {"|u1", DType::u8},  {"<i2", DType::i16},
      {"<u2", DType::u16}, {"<i4", DType::i32}, {"<u4", DType::u32}, {"<i8", DType::i64}, {"<u8", DType::u64}, {"|b1", DType::boolean}};
  const auto found = types.find(word);
  if (found == types.end()) fail(ErrorCode::unsupported, "{}: element type '{}' of .npy files is not supported", path, word);
  return found->second;
}

// What lies between `open` and `close` after 'NAME': in the header, a Python dictionary.
std::optional<std::string> npy_field(std::string_view header, std::string_view name, char open, char close) {
  const std::size_t key = header.find(fmt::format("'{}':", name));
  if (key == std::string_view::npos) return std::nullopt;
  const std::size_t begin = header.find(open, key + name.size() + 3);
  const std::size_t end = begin == std::string_view::npos ? begin : header.find(close, begin + 1);
  if (end == std::string_view::npos) return std::nullopt;
  return std::string(header.substr(begin + 1, end - begin - 1));
}

Shape npy_shape(const std::string& text, const std::string& path) {
  Shape shape;
  for (std::size_t at = 0; at < text.size();) {
    if (!std::isdigit(static_cast<unsigned char>(text[at]))) {
      ++at;
      continue;
    }
    std::size_t end = at;
    while (end < text.size() && std::isdigit(static_cast<unsigned char>(text[end]))) ++end;
    if (end - at > 18) fail(ErrorCode::invalid_argument, "{}: an extent of the .npy header is too large", path);
    shape.push_back(std::stoll(text.substr(at, end - at)));
    at = end;
  }
  return shape;
}

}  // namespace

Array read_npy(const std::string& path) {
  const auto file = MappedFile::open(path);
  const auto data = file->bytes();
  const auto damaged = [&](const char* why) { fail(ErrorCode::invalid_argument, "{} is no valid .npy file: {}", path, why); };
  if (data.size() < 12 || std::memcmp(data.data(), "\x93NUMPY", 6) != 0) damaged("it does not start with NUMPY");
  const bool wide = std::to_integer<int>(data[6]) >= 2;
  std::uint32_t length = 0;
  std::memcpy(&length, data.data() + 8, wide ? 4 : 2);
  const std::size_t begin = (wide ? 12 : 10) + std::size_t{length};
  if (length > 65536 || begin > data.size()) damaged("the header reaches past its end");
  const std::string header(reinterpret_cast<const char*>(data.data()) + (wide ? 12 : 10), length);
  const auto type = npy_field(header, "descr", '\'', '\''), shape = npy_field(header, "shape", '(', ')');
  const auto order = npy_field(header, "fortran_order", ' ', ',');
  if (!type || !shape || !order) damaged("the header lacks descr, fortran_order or shape");
  if (order->find("False") == std::string::npos)
    fail(ErrorCode::unsupported, "{} is in Fortran order; save it with numpy.ascontiguousarray", path);
  Array array{npy_dtype(*type, path), npy_shape(*shape, path), nullptr};
  if (data.size() - begin != array.size_bytes()) damaged("its size does not fit its shape");
  array.data = std::shared_ptr<const std::byte>(file, data.data() + begin);
  return array;
}

Arrays read_arrays(const std::string& path, std::map<std::string, std::string>* metadata) {
  const Safetensors file = Safetensors::open(path);
  if (metadata) *metadata = file.metadata();
  Arrays arrays;
  for (const auto& [name, entry] : file.entries()) arrays[name] = to_array(file.tensor(name));
  return arrays;
}

void write_arrays(const std::string& path, const Arrays& arrays) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& [name, array] : arrays) tensors.emplace_back(name, to_tensor(array));
  write_safetensors(path, tensors);
}

}  // namespace tandem
