// The collective operations of Group, on arrays.
#include <fmt/format.h>
#include <nanobind/stl/optional.h>

#include "arrays.h"
#include "group.h"
#include "tandem/error.h"

using namespace nb::literals;

namespace tandem::python {
namespace {

[[noreturn]] void refuse(const std::string& message) { throw Error(ErrorCode::invalid_argument, message); }

std::optional<Deadline> deadline_of(std::optional<double> seconds) {
  if (!seconds) return std::nullopt;
  if (!(*seconds >= 0 && *seconds < 1e9)) refuse(fmt::format("a deadline of {} s is none", *seconds));
  return Deadline::after(std::chrono::nanoseconds(static_cast<std::int64_t>(*seconds * 1e9)));
}

constexpr Place kOnHost{.why_not = "collectives of a group are on arrays of the host"};

int dimension(int axis, const BorrowedArray& array) { return axis < 0 ? axis + static_cast<int>(array.shape().size()) : axis; }

std::size_t size_bytes(const BorrowedArray& array) { return bytes(array.dtype(), element_count(array.shape())); }

// Memory to write to as it lies.
void require_writable(const BorrowedArray& array, const char* what) {
  if (array.read_only()) refuse(fmt::format("{} is read-only", what));
  if (!array.contiguous()) refuse(fmt::format("{} is not contiguous; results cannot be written to it in place", what));
}

void require_fits(const BorrowedArray& out, const CollectiveCall& call, const Shape& shape, const BorrowedArray& given) {
  require_writable(out, "out");
  if (out.dtype() != call.dtype || out.shape() != shape)
    refuse(
        fmt::format("out is {}{}, expected {}{}", to_string(out.dtype()), to_string(out.shape()), to_string(call.dtype), to_string(shape)));
  const std::byte *a = out.data(), *b = given.data();
  if (given.contiguous() && a != b && a < b + size_bytes(given) && b < a + size_bytes(out)) refuse("out overlaps the array that is given");
}

// `call` says everything but dtype, dims and memory.
nb::object run(PyGroup& self, CollectiveCall call, nb::handle array, nb::handle out, std::optional<double> deadline) {
  const BorrowedArray given(array, "the array", kOnHost);
  call.dtype = given.dtype();
  call.dims = given.shape();
  call.axis = dimension(call.axis, given);
  call.split_axis = dimension(call.split_axis, given);
  call.concat_axis = dimension(call.concat_axis, given);
  call.deadline = deadline_of(deadline);
  const Shape shape = collective_output_dims(call, self.size());
  std::shared_ptr<std::byte> packed;
  if (!given.contiguous()) packed = given.packed_copy();
  call.in = packed ? packed.get() : given.data();
  if (!out.is_none()) {
    const BorrowedArray wanted(out, "out", kOnHost);
    require_fits(wanted, call, shape, given);
    call.out = wanted.data();
    self.turn([&](Group& group) { group.run(call); });
    return nb::borrow(out);
  }
  const MadeArray made = make_array(given.kind() == ArrayKind::torch ? given.kind() : ArrayKind::numpy, call.dtype, shape);
  call.out = made.data;
  self.turn([&](Group& group) { group.run(call); });
  return given.kind() == ArrayKind::other ? converted_like(made.object, array) : made.object;
}

using Seconds = std::optional<double>;

#define OUT_ARGS "out"_a = nb::none(), "deadline"_a = nb::none()
#define OUT_SIG "out: typing.Any = None, deadline: float | None = None) -> typing.Any"

void bind_reducing(nb::class_<PyGroup>& group) {
  group
      .def(
          "all_reduce",
          [](PyGroup& self, nb::handle array, const std::string& reduce, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::all_reduce, .reduction = parse_reduction(reduce)}, array, out, deadline);
          },
          "array"_a, "reduce"_a = "sum", nb::kw_only(), OUT_ARGS,
          nb::sig("def all_reduce(self, array: typing.Any, reduce: str = \"sum\", *, " OUT_SIG),
          "Gives every rank the reduction over all ranks: \"sum\", \"prod\", \"max\", \"min\" or \"avg\", element by element, of arrays of "
          "one shape.\n\n"
          "This and the other operations: all ranks call them alike. Arrays are numpy, torch or whatever has DLPack or the buffer "
          "protocol; the result "
          "is of the same library, or `out`, a contiguous array that it is written to (the array itself where the shape stays). "
          "`deadline`: seconds "
          "without progress of another rank, if not the group's. The same bits on all ranks and from run to run.")
      .def(
          "reduce",
          [](PyGroup& self, nb::handle array, const std::string& reduce, int root, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::reduce, .reduction = parse_reduction(reduce), .root = root}, array, out, deadline);
          },
          "array"_a, "reduce"_a = "sum", "root"_a = 0, nb::kw_only(), OUT_ARGS,
          nb::sig("def reduce(self, array: typing.Any, reduce: str = \"sum\", root: int = 0, *, " OUT_SIG),
          "Gives rank `root` the reduction, the others zeros. See all_reduce.")
      .def(
          "reduce_scatter",
          [](PyGroup& self, nb::handle array, const std::string& reduce, int axis, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::reduce_scatter, .reduction = parse_reduction(reduce), .axis = axis}, array, out,
                       deadline);
          },
          "array"_a, "reduce"_a = "sum", "axis"_a = 0, nb::kw_only(), OUT_ARGS,
          nb::sig("def reduce_scatter(self, array: typing.Any, reduce: str = \"sum\", axis: int = 0, *, " OUT_SIG),
          "Gives rank r the r-th block of the reduction along dimension `axis`, whose extent the ranks divide. See all_reduce.");
}

void bind_moving(nb::class_<PyGroup>& group) {
  group
      .def(
          "all_gather",
          [](PyGroup& self, nb::handle array, int axis, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::all_gather, .axis = axis}, array, out, deadline);
          },
          "array"_a, "axis"_a = 0, nb::kw_only(), OUT_ARGS, nb::sig("def all_gather(self, array: typing.Any, axis: int = 0, *, " OUT_SIG),
          "Gives every rank the arrays of all, joined along dimension `axis` by rank. See all_reduce.")
      .def(
          "gather",
          [](PyGroup& self, nb::handle array, int root, int axis, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::gather, .axis = axis, .root = root}, array, out, deadline);
          },
          "array"_a, "root"_a = 0, "axis"_a = 0, nb::kw_only(), OUT_ARGS,
          nb::sig("def gather(self, array: typing.Any, root: int = 0, axis: int = 0, *, " OUT_SIG),
          "Gives rank `root` the arrays of all, joined along dimension `axis`; the others get zeros of that shape. See all_reduce.")
      .def(
          "broadcast",
          [](PyGroup& self, nb::handle array, int root, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::broadcast, .root = root}, array, out, deadline);
          },
          "array"_a, "root"_a = 0, nb::kw_only(), OUT_ARGS, nb::sig("def broadcast(self, array: typing.Any, root: int = 0, *, " OUT_SIG),
          "Gives every rank the array of rank `root`; those of the others only say type and shape. See all_reduce.")
      .def(
          "scatter",
          [](PyGroup& self, nb::handle array, int root, int axis, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::scatter, .axis = axis, .root = root}, array, out, deadline);
          },
          "array"_a, "root"_a = 0, "axis"_a = 0, nb::kw_only(), OUT_ARGS,
          nb::sig("def scatter(self, array: typing.Any, root: int = 0, axis: int = 0, *, " OUT_SIG),
          "Gives rank r the r-th block, along dimension `axis`, of the array of rank `root`; those of the others only say type and shape. "
          "See all_reduce.")
      .def(
          "all_to_all",
          [](PyGroup& self, nb::handle array, int split_axis, int concat_axis, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::all_to_all, .split_axis = split_axis, .concat_axis = concat_axis}, array, out, deadline);
          },
          "array"_a, "split_axis"_a = 0, "concat_axis"_a = 0, nb::kw_only(), OUT_ARGS,
          nb::sig("def all_to_all(self, array: typing.Any, split_axis: int = 0, concat_axis: int = 0, *, " OUT_SIG),
          "Cuts each array into a block per rank along `split_axis`; rank r gets the r-th block of every rank, joined along `concat_axis`. "
          "See all_reduce.")
      .def(
          "shift",
          [](PyGroup& self, nb::handle array, int by, nb::handle out, Seconds deadline) {
            return run(self, {.kind = Collective::shift, .shift = by}, array, out, deadline);
          },
          "array"_a, "by"_a = 1, nb::kw_only(), OUT_ARGS, nb::sig("def shift(self, array: typing.Any, by: int = 1, *, " OUT_SIG),
          "Gives rank r the array of rank r - `by`, modulo the number of ranks. See all_reduce.");
}

#undef OUT_ARGS
#undef OUT_SIG

void bind_pairs(nb::class_<PyGroup>& group) {
  group
      .def(
          "send",
          [](PyGroup& self, nb::handle array, int to, Seconds deadline) {
            const BorrowedArray given(array, "the array", kOnHost);
            std::shared_ptr<std::byte> packed;
            if (!given.contiguous()) packed = given.packed_copy();
            const std::byte* data = packed ? packed.get() : given.data();
            self.turn([&](Group& g) { g.send({data, size_bytes(given)}, to, deadline_of(deadline)); });
          },
          "array"_a, "to"_a, nb::kw_only(), "deadline"_a = nb::none(),
          nb::sig("def send(self, array: typing.Any, to: int, *, deadline: float | None = None) -> None"),
          "Sends the array's bytes to one rank, which calls recv. A large one waits for that.")
      .def(
          "recv",
          [](PyGroup& self, nb::handle out, int source, Seconds deadline) {
            const BorrowedArray wanted(out, "out", kOnHost);
            require_writable(wanted, "out");
            self.turn([&](Group& g) { g.recv({wanted.data(), size_bytes(wanted)}, source, deadline_of(deadline)); });
            return nb::borrow(out);
          },
          "out"_a, "source"_a, nb::kw_only(), "deadline"_a = nb::none(),
          nb::sig("def recv(self, out: typing.Any, source: int, *, deadline: float | None = None) -> typing.Any"),
          "Fills `out`, a contiguous array, with what rank `source` sends, and returns it. The number of bytes must be the same on both "
          "sides.");
}

}  // namespace

void bind_collectives(nb::class_<PyGroup>& group) {
  bind_reducing(group);
  bind_moving(group);
  bind_pairs(group);
}

}  // namespace tandem::python
