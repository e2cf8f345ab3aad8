#include "ports.h"

#include <fmt/format.h>

#include "tandem/error.h"

namespace tandem::python {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorCode::invalid_argument, message); }

bool overlap(const std::byte* a, std::size_t a_bytes, const std::byte* b, std::size_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

std::size_t size_bytes(const BorrowedArray& array) { return bytes(array.dtype(), element_count(array.shape())); }

}  // namespace

PortTable::PortTable(std::vector<Port> ports, const char* side) : ports_(std::move(ports)), side_(side) {
  for (const Port& port : ports_) {
    PyObject* name = PyUnicode_FromStringAndSize(port.name.data(), static_cast<Py_ssize_t>(port.name.size()));
    if (!name) throw nb::python_error();
    PyUnicode_InternInPlace(&name);
    names_.push_back(nb::steal(name));
    labels_.push_back(fmt::format("{} '{}'", side, port.name));
  }
}

std::size_t PortTable::find(nb::handle name) const {
  for (std::size_t i = 0; i < names_.size(); ++i)
    if (names_[i].is(name)) return i;
  if (PyUnicode_Check(name.ptr()))
    for (std::size_t i = 0; i < names_.size(); ++i)
      if (PyUnicode_Compare(names_[i].ptr(), name.ptr()) == 0) return i;
  std::vector<std::string> known;
  for (const Port& port : ports_) known.push_back(fmt::format("'{}'", port.name));
  refuse(fmt::format("there is no {} {}; there {} {}", side_, nb::cast<std::string>(nb::repr(name)), known.size() == 1 ? "is" : "are",
                     fmt::join(known, ", ")));
}

void GivenArrays::take(nb::handle mapping) {
  if (mapping.is_none()) return;
  if (PyDict_Check(mapping.ptr())) {
    PyObject *key = nullptr, *value = nullptr;
    for (Py_ssize_t at = 0; PyDict_Next(mapping.ptr(), &at, &key, &value);) take_one(table_.find(key), value);
    return;
  }
  if (!PyMapping_Check(mapping.ptr()) || !nb::hasattr(mapping, "items"))
    refuse("arrays are given by name: model(NAME=array) or model({\"NAME\": array})");
  for (nb::handle item : mapping.attr("items")()) take_one(table_.find(nb::object(item[0])), nb::object(item[1]));
}

void GivenArrays::take_one(std::size_t port, nb::handle value) {
  if (arrays_[port] || !per_rank_[port].empty()) refuse(fmt::format("{} is given twice", table_.label(port)));
  if (!PyList_Check(value.ptr()) && !PyTuple_Check(value.ptr())) {
    arrays_[port].emplace(read(port, value, table_.label(port)));
    return;
  }
  if (!table_[port].per_rank)
    refuse(
        fmt::format("{} is a {}, expected one array; see numpy.asarray", table_.label(port), PyList_Check(value.ptr()) ? "list" : "tuple"));
  for (nb::handle one : value)
    per_rank_[port].push_back(read(port, one, fmt::format("{} of rank {}", table_.label(port), per_rank_[port].size())));
}

BorrowedArray GivenArrays::read(std::size_t port, nb::handle value, const std::string& what) {
  BorrowedArray array(value, what, place_);
  const DType expected = table_[port].dtype;
  if (array.dtype() != expected)
    refuse(fmt::format("{} has element type {}, expected {}", what, to_string(array.dtype()), to_string(expected)));
  if (array.kind() != ArrayKind::numpy && kind_ == ArrayKind::numpy) {
    kind_ = array.kind();
    like_ = array.object();
  }
  return array;
}

void GivenArrays::require_all() const {
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    if (arrays_[i] || !per_rank_[i].empty()) continue;
    std::string shape;
    for (const std::string& extent : table_[i].shape) shape += (shape.empty() ? "" : ",") + extent;
    refuse(fmt::format("{} ({}[{}]) is missing", table_.label(i), to_string(table_[i].dtype), shape));
  }
}

bool GivenArrays::on_gpu() const {
  std::optional<std::size_t> host, gpu;
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    if (!arrays_[i]) continue;
    (arrays_[i]->on_gpu() ? gpu : host) = i;
    if (arrays_[i]->on_gpu() && !arrays_[i]->contiguous())
      refuse(fmt::format("{} is not contiguous; arrays of a GPU are used where they lie", table_.label(i)));
  }
  if (host && gpu)
    refuse(fmt::format("{} lies on the host and {} on GPU {}: give all on one side", table_.label(*host), table_.label(*gpu), place_.gpu));
  return gpu.has_value();
}

void GivenArrays::require_writable(const GivenArrays& inputs) const {
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    if (!per_rank_[i].empty()) refuse(fmt::format("{} is each rank's own: it cannot be written to arrays of the caller", table_.label(i)));
    if (!arrays_[i]) continue;
    const BorrowedArray& output = *arrays_[i];
    if (output.read_only()) refuse(fmt::format("the array for {} is read-only", table_.label(i)));
    if (!output.contiguous())
      refuse(fmt::format("the array for {} is not contiguous; results cannot be written to it in place", table_.label(i)));
    for (std::size_t j = 0; j < inputs.arrays_.size(); ++j)
      if (inputs.arrays_[j] && inputs.arrays_[j]->contiguous() &&
          overlap(output.data(), size_bytes(output), inputs.arrays_[j]->data(), size_bytes(*inputs.arrays_[j])))
        refuse(fmt::format("the array for {} shares memory with {}", table_.label(i), inputs.table_.label(j)));
    for (std::size_t j = 0; j < i; ++j)
      if (arrays_[j] && overlap(output.data(), size_bytes(output), arrays_[j]->data(), size_bytes(*arrays_[j])))
        refuse(fmt::format("the array for {} shares memory with that for {}", table_.label(i), table_.label(j)));
  }
}

RankArrays GivenArrays::share(int& copies) {
  RankArrays out;
  const auto add = [&](std::size_t port, BorrowedArray& array) {
    copies += array.contiguous() ? 0 : 1;
    out[table_[port].name].push_back(BorrowedArray::share(std::move(array)));
  };
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    if (arrays_[i]) add(i, *arrays_[i]);
    for (BorrowedArray& array : per_rank_[i]) add(i, array);
  }
  return out;
}

}  // namespace tandem::python
