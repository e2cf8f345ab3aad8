// Network, Value and the list of ops: programs built in Python. tandem/network.py and the generated tandem/ops.py stand on it.
#include <nanobind/stl/map.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "arrays.h"
#include "progress.h"
#include "tandem/network.h"

using namespace nb::literals;

namespace tandem::python {
namespace {

using NetworkValue = Network::Value;

std::string class_of(nb::handle object) {
  return nb::cast<std::string>(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))).attr("__name__"));
}

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorCode::invalid_argument, message); }

// Whole numbers of Python and numpy; nothing for a bool.
std::optional<std::int64_t> integer(nb::handle object) {
  if (PyBool_Check(object.ptr()) || !PyIndex_Check(object.ptr()) || nb::isinstance<NetworkValue>(object)) return std::nullopt;
  const nb::object number = nb::steal(PyNumber_Index(object.ptr()));
  if (!number.is_valid()) {
    PyErr_Clear();  // an array of several elements
    return std::nullopt;
  }
  const long long value = PyLong_AsLongLong(number.ptr());
  if (value == -1 && PyErr_Occurred()) throw nb::python_error();
  return value;
}

std::optional<double> real(nb::handle object) {
  if (PyFloat_Check(object.ptr())) return PyFloat_AsDouble(object.ptr());
  if (const auto whole = integer(object)) return static_cast<double>(*whole);
  if (!nb::hasattr(object, "__float__") || PyUnicode_Check(object.ptr()) || PyBool_Check(object.ptr()) || nb::len_hint(object) > 0)
    return std::nullopt;
  return nb::cast<double>(nb::float_(nb::borrow(object)));
}

std::optional<Extent> extent(nb::handle object) {
  if (PyUnicode_Check(object.ptr())) return Extent(nb::cast<std::string>(object));
  if (const auto number = integer(object)) return Extent(*number);
  return std::nullopt;
}

Extents extents(nb::handle object, const std::string& what) {
  Extents list;
  if (!PySequence_Check(object.ptr()) || PyUnicode_Check(object.ptr()))
    refuse(what + " is " + class_of(object) + ", expected a list of numbers and symbols");
  for (nb::handle item : object) {
    const auto one = extent(item);
    if (!one) refuse(what + " holds " + class_of(item) + ", expected a number or a symbol");
    list.push_back(*one);
  }
  return list;
}

std::vector<std::int64_t> integers(nb::handle object, const std::string& what) {
  std::vector<std::int64_t> list;
  if (!PySequence_Check(object.ptr()) || PyUnicode_Check(object.ptr()))
    refuse(what + " is " + class_of(object) + ", expected a list of whole numbers");
  for (nb::handle item : object) {
    const auto one = integer(item);
    if (!one) refuse(what + " holds " + class_of(item) + ", expected whole numbers");
    list.push_back(*one);
  }
  return list;
}

// One flat list is one group.
RankGroups rank_groups(nb::handle object, const std::string& what) {
  RankGroups groups;
  if (!PySequence_Check(object.ptr()) || PyUnicode_Check(object.ptr()))
    refuse(what + " is " + class_of(object) + ", expected lists of ranks");
  if (nb::len(object) > 0 && integer(object[0])) return {integers(object, what)};
  for (nb::handle item : object) groups.push_back(integers(item, what));
  return groups;
}

Array array_of(nb::handle object, const std::string& what, bool copy = false) {
  BorrowedArray borrowed(object, what, {.why_not = "a network takes its weights and constants from there"});
  if (!copy || !borrowed.contiguous()) return BorrowedArray::share(std::move(borrowed));
  Array out = BorrowedArray::share(std::move(borrowed));
  auto memory = std::shared_ptr<std::byte>(new std::byte[out.size_bytes() + 1], std::default_delete<std::byte[]>());
  std::copy_n(out.data.get(), out.size_bytes(), memory.get());
  out.data = memory;
  return out;
}

OpAttribute attribute_of(const AttributeInfo& attribute, nb::handle object) {
  const std::string what = "attribute '" + attribute.name + "'", &kind = attribute.kind;
  if (kind == "integers") return integers(object, what);
  if (kind == "dims") return extents(object, what);
  if (kind == "lists of ranks") return rank_groups(object, what);
  if (kind == "tensor") return array_of(object, what);
  if (kind == "bool" && PyBool_Check(object.ptr())) return nb::cast<bool>(object);
  if (kind == "real")
    if (const auto number = real(object)) return *number;
  if (kind == "integer" || kind == "dim")
    if (const auto number = integer(object)) return *number;
  if ((kind == "text" || kind == "dtype" || kind == "dim") && PyUnicode_Check(object.ptr())) return nb::cast<std::string>(object);
  refuse(what + " is of kind " + kind + ", found " + class_of(object));
}

OpAttributes attributes_of(const OpInfo& op, const nb::dict& given) {
  OpAttributes attributes;
  for (const auto& [key, value] : given) {
    const auto name = nb::cast<std::string>(key);
    const auto found = std::find_if(op.attributes.begin(), op.attributes.end(), [&](const AttributeInfo& a) { return a.name == name; });
    if (!value.is_none()) attributes[name] = found == op.attributes.end() ? OpAttribute(false) : attribute_of(*found, value);
  }
  return attributes;
}

NetworkValue scalar(Network& network, DType dtype, double number, const std::string& what) {
  if (!is_float(dtype) && number != std::floor(number))
    refuse(what + " is " + std::to_string(number) + ", which no " + std::string(to_string(dtype)) + " is");
  return network.scalar(dtype, number);
}

// A value, None, or what becomes a constant: a number takes the dtype `like`.
NetworkValue operand(Network& network, nb::handle object, std::optional<DType> like, const std::string& what) {
  if (nb::isinstance<NetworkValue>(object)) return nb::cast<NetworkValue>(object);
  if (object.is_none()) return {};
  const auto number = PyBool_Check(object.ptr())                      ? std::optional<double>(object.ptr() == Py_True ? 1 : 0)
                      : PyObject_HasAttrString(object.ptr(), "dtype") ? std::nullopt
                                                                      : real(object);
  if (number && !like) refuse(what + " is a number beside no value whose dtype it could take: give an array");
  return number ? scalar(network, *like, *number, what) : network.constant(array_of(object, what));
}

// The dtype that numbers beside these operands take: of the first value that is no condition.
std::optional<DType> dtype_among(const nb::list& operands) {
  std::optional<DType> found;
  for (nb::handle object : operands)
    if (nb::isinstance<NetworkValue>(object)) {
      const DType dtype = nb::cast<NetworkValue&>(object).dtype();
      if (!found || *found == DType::boolean) found = dtype;
    }
  return found;
}

std::vector<NetworkValue> add_all(Network& network, const std::string& name_of_op, const nb::list& operands, const nb::dict& attributes,
                                  const std::string& name) {
  const OpInfo& op = op_info(name_of_op);
  const std::string label = "[" + op.name + (name.empty() ? "" : " \"" + name + "\"") + "] ";
  std::vector<NetworkValue> values;
  try {
    const auto like = dtype_among(operands);
    for (std::size_t i = 0; i < operands.size(); ++i) {
      const auto& names = op.operands;
      values.push_back(
          operand(network, operands[i], like, "operand '" + (names.empty() ? "" : names[std::min(i, names.size() - 1)].name) + "'"));
    }
    const auto required =
        static_cast<std::size_t>(std::count_if(op.operands.begin(), op.operands.end(), [](const OperandInfo& o) { return !o.optional; }));
    while (values.size() > required && !op.variadic && !values.back()) values.pop_back();
    return network.add_all(name_of_op, values, attributes_of(op, attributes), name);
  } catch (const Error& error) {
    if (!error.node().empty()) throw;
    throw Error(error.code(), error.message(), label.substr(1, label.size() - 3));
  }
}

void set_attribute(Network& network, const NetworkValue& value, const std::string& name, nb::object to) {
  nb::dict one;
  one[name.c_str()] = to;
  if (value.op().empty()) refuse("'" + value.name() + "' is an input or a weight, which has no attributes");
  const OpAttributes attributes = attributes_of(op_info(value.op()), one);
  if (attributes.empty()) refuse("attribute '" + name + "' cannot be None");
  network.set_attribute(value, name, attributes.at(name));
}

nb::tuple shape_of(const NetworkValue& value) {
  nb::list shape;
  for (const Extent& e : value.shape()) shape.append(e.value() ? nb::object(nb::int_(*e.value())) : nb::object(nb::str(e.text().c_str())));
  return nb::tuple(shape);
}

std::string text_of(const NetworkValue& value) {
  std::string text = value.name() + ": " + std::string(to_string(value.dtype())) + "[";
  const Extents shape = value.shape();
  for (std::size_t d = 0; d < shape.size(); ++d) text += (d ? "," : "") + shape[d].text();
  return text + "]";
}

nb::object to_python(const OpAttribute& value) {
  const auto list_of = [](const auto& items, auto convert) {
    nb::list list;
    for (const auto& item : items) list.append(convert(item));
    return nb::object(list);
  };
  const auto extent_object = [](const Extent& e) {
    return e.value() ? nb::object(nb::int_(*e.value())) : nb::object(nb::str(e.text().c_str()));
  };
  if (const auto* integer = std::get_if<std::int64_t>(&value)) return nb::int_(*integer);
  if (const auto* number = std::get_if<double>(&value)) return nb::float_(*number);
  if (const auto* truth = std::get_if<bool>(&value)) return nb::bool_(*truth);
  if (const auto* text = std::get_if<std::string>(&value)) return nb::str(text->c_str());
  if (const auto* dtype = std::get_if<DType>(&value)) return nb::str(std::string(to_string(*dtype)).c_str());
  if (const auto* array = std::get_if<Array>(&value)) return to_numpy(*array);
  if (const auto* dims = std::get_if<Extents>(&value)) return list_of(*dims, extent_object);
  if (const auto* numbers = std::get_if<std::vector<std::int64_t>>(&value))
    return list_of(*numbers, [](std::int64_t n) { return nb::int_(n); });
  return list_of(std::get<RankGroups>(value),
                 [&](const auto& group) { return list_of(group, [](std::int64_t n) { return nb::int_(n); }); });
}

NetworkValue binary(const char* op, const NetworkValue& self, nb::handle other, bool swapped) {
  Network network = self.network();
  nb::list operands;
  operands.append(swapped ? nb::borrow(other) : nb::cast(self));
  operands.append(swapped ? nb::cast(self) : nb::borrow(other));
  return add_all(network, op, operands, nb::dict(), "").at(0);
}

void bind_operators(nb::class_<NetworkValue>& value) {
  struct Row {
    const char* method;
    const char* swapped;  // null: none
    const char* op;
  };
  static constexpr Row kRows[] = {
      {"__add__", "__radd__", "Add"},          {"__sub__", "__rsub__", "Sub"},       {"__mul__", "__rmul__", "Mul"},
      {"__truediv__", "__rtruediv__", "Div"},  {"__mod__", "__rmod__", "Mod"},       {"__pow__", "__rpow__", "Pow"},
      {"__matmul__", "__rmatmul__", "MatMul"}, {"__and__", "__rand__", "And"},       {"__or__", "__ror__", "Or"},
      {"__xor__", "__rxor__", "Xor"},          {"__lt__", nullptr, "Less"},          {"__le__", nullptr, "LessOrEqual"},
      {"__gt__", nullptr, "Greater"},          {"__ge__", nullptr, "GreaterOrEqual"}};
  for (const Row& row : kRows) {
    const auto add = [&](const char* method, bool swapped) {
      const char* op = row.op;
      const std::string* signature =
          new std::string("def " + std::string(method) + "(self, other: typing.Any, /) -> Value");  // for ever, as is the class
      value.def(
          method, [op, swapped](const NetworkValue& self, nb::object other) { return binary(op, self, other, swapped); },
          nb::sig(signature->c_str()));
    };
    add(row.method, false);
    if (row.swapped) add(row.swapped, true);
  }
  for (const auto& [method, op] : {std::pair{"__neg__", "Neg"}, {"__abs__", "Abs"}, {"__invert__", "Not"}})
    value.def(method, [op = op](const NetworkValue& self) { return self.network().add(op, {self}); });
}

// A path, or the bytes of a model as a buffer.
Network from_onnx(nb::object model, int ranks, bool refittable, const std::string& folder) {
  const OnnxOptions options{ranks, refittable, folder};
  if (PyUnicode_Check(model.ptr())) {
    const auto path = nb::cast<std::string>(model);
    const nb::gil_scoped_release release;
    return Network::from_onnx(path, options);
  }
  const Array bytes = bytes_of(model);
  const nb::gil_scoped_release release;
  return Network::from_onnx(bytes, options);
}

void bind_value(nb::module_& module) {
  nb::class_<NetworkValue> value(
      module, "Value",
      "A value of a network: an input, a weight or what an op gives. `+ - * / % ** @`, `-x`, `abs(x)`, `< <= > >=` and, of bools, `& | ^ "
      "~` add ops "
      "after numpy's broadcasting, with another value, an array or a number; `==` compares identity, for `network.equal` is the op.");
  value.def_prop_ro("name", &NetworkValue::name, "Unique in its network.")
      .def_prop_ro(
          "dtype", [](const NetworkValue& v) { return std::string(to_string(v.dtype())); },
          "Element type: \"f32\", \"bf16\", \"i64\", \"bool\", …")
      .def_prop_ro("shape", shape_of, nb::sig("def shape(self) -> tuple[int | str, ...]"),
                   "Extents in elements, as one rank holds them: numbers, or expressions over symbols.")
      .def_prop_ro("op", &NetworkValue::op, "The op that gives it, such as \"MatMul\"; empty for inputs and weights.")
      .def_prop_ro("ndim", &NetworkValue::rank, "The number of dimensions.")
      .def(
          "__eq__", [](const NetworkValue& a, nb::handle b) { return nb::isinstance<NetworkValue>(b) && a == nb::cast<NetworkValue>(b); },
          nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__hash__", [](const NetworkValue& v) { return std::hash<std::string>()(v.name()); })
      .def("__bool__",
           [](const NetworkValue& v) -> bool { refuse("'" + v.name() + "' is known when the network runs: it decides nothing now"); })
      .def("__repr__", [](const NetworkValue& v) { return "Value(" + text_of(v) + ")"; });
  value.attr("__array_ufunc__") = nb::none();  // so that array + value comes to us
  bind_operators(value);
}

void bind_ops(nb::module_& module) {
  nb::class_<OperandInfo>(module, "OperandInfo", "An operand or result of an op.")
      .def_ro("name", &OperandInfo::name, "Its name.")
      .def_ro("doc", &OperandInfo::doc, "What it is, where the op's sentence does not say it.")
      .def_ro("optional", &OperandInfo::optional, "Whether it may be absent.");
  nb::class_<AttributeInfo>(module, "AttributeInfo", "An attribute of an op.")
      .def_ro("name", &AttributeInfo::name, "Its name.")
      .def_ro("kind", &AttributeInfo::kind,
              "\"integer\", \"real\", \"bool\", \"text\", \"integers\", \"dim\", \"dims\", \"dtype\", \"tensor\", \"lists of ranks\".")
      .def_prop_ro(
          "initial", [](const AttributeInfo& a) { return to_python(a.initial); }, nb::sig("def initial(self) -> typing.Any"),
          "Its default.")
      .def_ro("words", &AttributeInfo::words, "The values a text may have; empty: any.")
      .def_ro("doc", &AttributeInfo::doc, "What it means.");
  nb::class_<OpInfo>(module, "OpInfo", "What an op takes and gives.")
      .def_ro("name", &OpInfo::name, "The word in graphs: \"LayerNorm\".")
      .def_ro("method", &OpInfo::method, "The name of the method of Network, but for an underscore after words of Python.")
      .def_ro("doc", &OpInfo::doc, "One sentence, with the formula.")
      .def_ro("operands", &OpInfo::operands, "Its operands, the optional ones last.")
      .def_ro("variadic", &OpInfo::variadic, "Whether it takes any number of operands.")
      .def_ro("results", &OpInfo::results, "What it gives.")
      .def_ro("attributes", &OpInfo::attributes, "Its attributes.")
      .def_ro("pointwise", &OpInfo::pointwise, "Whether element i of the result depends on the elements i of the operands only.")
      .def_ro("collective", &OpInfo::collective, "Whether all ranks of a group take part.")
      .def("__repr__", [](const OpInfo& op) { return "OpInfo(" + op.name + ")"; });
  module.def("list_ops", &list_ops, "Every op that a network can hold.");
}

}  // namespace

void bind_network(nb::module_& module) {
  bind_value(module);
  bind_ops(module);
  nb::class_<Network>(module, "_Network")
      .def(nb::init<const std::string&>(), "mesh"_a = "")
      .def(
          "__init__",
          [](Network* self, nb::object model, int ranks, bool refittable, const std::string& folder) {
            new (self) Network(from_onnx(std::move(model), ranks, refittable, folder));
          },
          "model"_a, "ranks"_a, "refittable"_a, "folder"_a)
      .def_prop_ro("_mesh", &Network::mesh)
      .def("_symbol", &Network::symbol, "name"_a, "min"_a, "opt"_a, "max"_a)
      .def(
          "_input",
          [](Network& n, const std::string& name, const std::string& dtype, nb::object shape, const std::string& placement) {
            return n.input(name, parse_dtype(dtype), extents(shape, "the shape of input '" + name + "'"), placement);
          },
          "name"_a, "dtype"_a, "shape"_a, "placement"_a)
      .def(
          "_weight",
          [](Network& n, const std::string& name, nb::object data, const std::string& placement, bool copy) {
            return n.weight(name, array_of(data, "weight '" + name + "'", copy), placement);
          },
          "name"_a, "data"_a.none(), "placement"_a, "copy"_a)
      .def(
          "_constant", [](Network& n, nb::object data, bool copy) { return n.constant(array_of(data, "a constant", copy)); },
          "data"_a.none(), "copy"_a)
      .def(
          "_scalar", [](Network& n, const std::string& dtype, double value) { return scalar(n, parse_dtype(dtype), value, "a constant"); },
          "dtype"_a, "value"_a)
      .def(
          "_add_all", add_all, "op"_a, "operands"_a, "attributes"_a, "name"_a,
          nb::sig("def _add_all(self, op: str, operands: list[Value | None], attributes: dict[str, typing.Any], name: str) -> list[Value]"))
      .def("_set_attribute", set_attribute, "value"_a, "name"_a, "to"_a.none())
      .def(
          "_attribute",
          [](const Network& n, const NetworkValue& value, const std::string& name) { return to_python(n.attribute(value, name)); },
          "value"_a, "name"_a)
      .def("_output", &Network::output, "name"_a, "value"_a, "placement"_a)
      .def("_remove_output", &Network::remove_output, "name"_a)
      .def("_inputs", &Network::inputs)
      .def(
          "_outputs",
          [](const Network& n) {
            nb::dict outputs;
            for (const auto& [name, value] : n.outputs()) outputs[name.c_str()] = nb::cast(value);
            return outputs;
          },
          nb::sig("def _outputs(self) -> dict[str, Value]"))
      .def("_to_text", &Network::to_text)
      .def("_describe", &Network::describe)
      .def(
          "_build",
          [](const Network& network, BuildOptions options, nb::object progress) {
            options.progress = progress_callback(std::move(progress));
            const Network copy = network.copy();  // another thread may go on adding
            const nb::gil_scoped_release release;
            return build(copy, options);
          },
          "options"_a, "progress"_a = nb::none());
}

}  // namespace tandem::python
