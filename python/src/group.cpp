// Group: joining, and what is no collective operation on arrays.
#include "group.h"

#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <optional>

#include "bind.h"
#include "tandem/error.h"
#include "tandem/host.h"
#include "tandem/nccl.h"

using namespace nb::literals;

namespace tandem::python {
namespace {

GroupOptions options_of(const PyGroup::Stop& stop, const std::string& run_id, double rendezvous, double step) {
  return {.run_id = run_id, .rendezvous_deadline_s = rendezvous, .step_deadline_s = step, .stop = [stop] { return stop->stop(); }};
}

template <typename Join>
std::unique_ptr<PyGroup> joined(const Join& join) {
  const auto stop = std::make_shared<Interrupt>();
  std::shared_ptr<Group> group = stop->waiting([&] { return join(stop); });
  return std::make_unique<PyGroup>(std::move(group), stop);
}

std::unique_ptr<PyGroup> join(int rank, int size, const std::string& address, const std::string& run_id, double rendezvous, double step) {
  return joined([&](const PyGroup::Stop& stop) { return Group::join(rank, size, address, options_of(stop, run_id, rendezvous, step)); });
}

std::unique_ptr<PyGroup> from_env(const std::string& run_id, double rendezvous, double step) {
  return joined([&](const PyGroup::Stop& stop) { return Group::from_env(options_of(stop, run_id, rendezvous, step)); });
}

// Each rank is a thread: none asks for another's signals.
nb::list in_process(int size, double rendezvous, double step) {
  nb::list out;
  for (auto& group : Group::in_process(size, {.rendezvous_deadline_s = rendezvous, .step_deadline_s = step, .stop = {}}))
    out.append(nb::cast(std::make_unique<PyGroup>(std::move(group), std::make_shared<Interrupt>())));
  return out;
}

nb::list exchange(PyGroup& self, const nb::bytes& blob) {
  const auto* data = reinterpret_cast<const std::byte*>(blob.c_str());
  const auto blobs = self.turn([&](Group& group) { return group.exchange({data, blob.size()}); });
  nb::list out;
  for (const auto& one : blobs) out.append(nb::bytes(reinterpret_cast<const char*>(one.data()), one.size()));
  return out;
}

nb::object split(PyGroup& self, const std::vector<std::vector<int>>& lists) {
  std::shared_ptr<Group> made = self.turn([&](Group& group) { return group.split(lists); });
  return made ? nb::cast(std::make_unique<PyGroup>(std::move(made), self.stop())) : nb::none();
}

nb::tuple members(const PyGroup& self) {
  nb::list ranks;
  for (const int rank : self.open()->members()) ranks.append(rank);
  return nb::tuple(ranks);
}

void bind_joining(nb::class_<PyGroup>& group) {
  group
      .def_static("join", &join, "rank"_a, "size"_a, "address"_a, nb::kw_only(), "run_id"_a = "", "rendezvous_deadline"_a = 60.0,
                  "step_deadline"_a = 30.0,
                  "Joins as `rank` of `size` processes of one user on one host, which meet at `address`, \"HOST:PORT\". No TCP port is "
                  "used, so that one of "
                  "a launcher is not in the way. Returns once all have come. `run_id`: tells runs apart that meet at one address. "
                  "`rendezvous_deadline`: "
                  "seconds that ranks wait for each other to come or to split; `step_deadline`: seconds without progress of a rank that "
                  "others wait for.\n\n"
                  "Raises DeadlineError naming the ranks that did not come, MismatchError where ranks disagree about their number or two "
                  "are the same one, "
                  "UnsupportedError for another host's address.")
      .def_static("from_env", &from_env, nb::kw_only(), "run_id"_a = "", "rendezvous_deadline"_a = 60.0, "step_deadline"_a = 30.0,
                  "join() with what the launcher of this process says: RANK and WORLD_SIZE (torchrun), OMPI_COMM_WORLD_RANK and _SIZE "
                  "(mpirun), PMI_RANK and "
                  "_SIZE (mpiexec), SLURM_PROCID and SLURM_NTASKS (srun); MASTER_ADDR and MASTER_PORT, or else 127.0.0.1:29500.\n\n"
                  "Raises as join(), InvalidArgumentError naming a variable that is missing or no number, UnsupportedError for ranks on "
                  "several hosts.")
      .def_static("in_process", &in_process, "size"_a, nb::kw_only(), "rendezvous_deadline"_a = 60.0, "step_deadline"_a = 30.0,
                  nb::sig("def in_process(size: int, *, rendezvous_deadline: float = 60.0, step_deadline: float = 30.0) -> list[Group]"),
                  "The groups of `size` ranks that are threads of this process, by rank: each for a thread of its own.")
      .def_static(
          "from_torch",
          [](nb::object process_group, double rendezvous, double step) {
            return nb::module_::import_("tandem.torch_group").attr("from_torch")(process_group, rendezvous, step);
          },
          "process_group"_a = nb::none(), nb::kw_only(), "rendezvous_deadline"_a = 60.0, "step_deadline"_a = 30.0,
          nb::sig("def from_torch(process_group: typing.Any = None, *, rendezvous_deadline: float = 60.0, step_deadline: float = 30.0) -> "
                  "Group"),
          "The ranks of a torch.distributed process group (None: the default one), which must be on one host. Collective: all of them call "
          "it. The "
          "process group is used once, to agree on where to meet, and stays the caller's.");
}

}  // namespace

PyGroup::PyGroup(std::shared_ptr<Group> group, Stop stop, nb::object lender)
    : lender_(std::move(lender)),
      place_{std::move(group)},
      stop_(std::move(stop)),
      rank_(place_.group->rank()),
      size_(place_.group->size()),
      session_("group", place_) {}

const std::shared_ptr<Group>& PyGroup::open() const {
  session_.require_open();
  return place_.group;
}

namespace {

ncclComm* address(nb::handle number) {
  void* const pointer = PyLong_AsVoidPtr(number.ptr());
  if (pointer || !PyErr_Occurred()) return static_cast<ncclComm*>(pointer);
  PyErr_Clear();
  throw Error(ErrorCode::invalid_argument, "a number so large is no communicator of NCCL: an address has 64 bits");
}

// Of a communicator of NCCL as other libraries give it: a number (torch's ProcessGroupNCCL._comm_ptr()), a capsule, a pointer of ctypes, an
// object with `ptr` (nccl4py) or `comm` (cupy). Nothing if it is none.
std::optional<ncclComm*> nccl_communicator(nb::handle given) {
  if (PyBool_Check(given.ptr())) return std::nullopt;
  if (PyLong_Check(given.ptr())) return address(given);
  if (PyCapsule_CheckExact(given.ptr())) return static_cast<ncclComm*>(PyCapsule_GetPointer(given.ptr(), PyCapsule_GetName(given.ptr())));
  if (nb::isinstance(given, nb::module_::import_("ctypes").attr("c_void_p"))) {
    const nb::object number = given.attr("value");
    return number.is_none() ? nullptr : address(number);
  }
  for (const char* name : {"ptr", "comm"})
    if (const nb::object number = nb::getattr(given, name, nb::none()); PyLong_Check(number.ptr())) return address(number);
  return std::nullopt;
}

std::string class_name(nb::handle object) {
  return nb::cast<std::string>(
      nb::str(nb::getattr(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))), "__name__", nb::str(""))));
}

[[noreturn]] void refuse_communicator(nb::handle given) {
  throw Error(
      ErrorCode::invalid_argument,
      "a communicator is a tandem.Group or one of NCCL (a number, a capsule, an object with `ptr` or `comm`), not " + class_name(given));
}

}  // namespace

GivenGroup group_of(nb::handle communicator, bool for_gpus) {
  if (communicator.is_none()) return {};
  if (nb::isinstance<PyGroup>(communicator)) {
    const auto& group = nb::cast<const PyGroup&>(communicator);
    return {group.open(), group.lender()};
  }
  const auto lent = nccl_communicator(communicator);
  if (!lent) refuse_communicator(communicator);
  if (!for_gpus)
    throw Error(ErrorCode::unsupported, "a communicator of NCCL (here: " + class_name(communicator) +
                                            ") is for engines on GPUs; this engine is for CPU ranks, which take a "
                                            "tandem.Group, such as Group.from_env() gives");
  return {group_from_nccl(*lent), nb::borrow(communicator)};
}

namespace {

std::unique_ptr<PyGroup> from_nccl(nb::object communicator) {
  const auto lent = nccl_communicator(communicator);
  if (!lent) refuse_communicator(communicator);
  return std::make_unique<PyGroup>(group_from_nccl(*lent), std::make_shared<Interrupt>(), std::move(communicator));
}

}  // namespace

void bind_group(nb::module_& module) {
  module.def(
      "_this_host",
      [] {
        const Host host = this_host();
        return nb::make_tuple(host.name, host.id);
      },
      nb::sig("def _this_host() -> tuple[str, str]"), "Its name, and what processes share that can hand one another memory.");
  nb::class_<PyGroup> group(
      module, "Group",
      "The ranks that communicate, seen from one of them: for programs that are a rank themselves. Context.set_communicator takes one, "
      "and its methods exchange arrays. One thread at a time; a context manager. Waits end by an error that names the rank that failed, "
      "left or made no progress; after that the group is of no more use on any rank: join again.");
  bind_joining(group);
  group.def_static(
      "from_nccl", &from_nccl, "communicator"_a.none(), nb::sig("def from_nccl(communicator: typing.Any) -> Group"),
      "The ranks of a communicator of NCCL that the caller has: its address as a number, a capsule, or an object with `ptr` (nccl4py) or "
      "`comm` "
      "(cupy), which is kept. For Context.set_communicator of engines for GPUs; local, never waits. The communicator stays the caller's "
      "and must "
      "outlive its use; see groups.\n\n"
      "Raises InvalidArgumentError for what NCCL does not know, or no more, UnsupportedError where the package was built without CUDA.");
  bind_collectives(group);
  group.def_prop_ro("rank", &PyGroup::rank, "This rank, from 0.")
      .def_prop_ro("size", &PyGroup::size, "How many ranks there are.")
      .def_prop_ro("members", &members, nb::sig("def members(self) -> tuple[int, ...]"),
                   "The ranks of this group as they were numbered when they joined; errors name those numbers.")
      .def("exchange", &exchange, "blob"_a, nb::sig("def exchange(self, blob: bytes) -> list[bytes]"),
           "Gives every rank's bytes to every rank, by rank. Sizes may differ.")
      .def(
          "barrier", [](PyGroup& self) { self.turn([](Group& group) { group.exchange({}); }); }, "Returns once all ranks have called it.")
      .def("split", &split, "lists"_a,
           nb::sig("def split(self, lists: collections.abc.Sequence[collections.abc.Sequence[int]]) -> Group | None"),
           "Smaller groups: disjoint ordered lists of ranks, the same on all. Returns the group of the list that this rank is in, or None. "
           "Collective.")
      .def("abort", &PyGroup::abort, "reason"_a,
           "Ends the waits of all ranks, now and from now on, with AbortedError. Callable from any thread.")
      .def("close", &PyGroup::close, "Leaves. Contexts that are bound to it keep what they need. Further calls raise InvalidArgumentError.")
      .def_prop_ro("closed", &PyGroup::closed, "True once it is closed.")
      .def(
          "__enter__", [](nb::object self) { return self; }, nb::sig("def __enter__(self) -> Group"), "Returns itself.")
      .def(
          "__exit__", [](PyGroup& self, const nb::args&) { self.close(); }, nb::sig("def __exit__(self, *exception: object) -> None"),
          "Closes.")
      .def("__repr__",
           [](const PyGroup& g) {
             return "Group(rank " + std::to_string(g.rank()) + " of " + std::to_string(g.size()) + (g.closed() ? ", closed)" : ")");
           })
      .def(
          "__reduce__",
          [](nb::handle) -> nb::object {
            throw nb::type_error("a Group cannot be pickled: it is this process's place among the ranks; let each process join by itself");
          },
          nb::sig("def __reduce__(self) -> typing.NoReturn"), "Raises TypeError.");
}

}  // namespace tandem::python
