// PyGroup: a Group of C++ as an object of Python, which one thread at a time uses and only the process that made it.
#pragma once

#include <memory>
#include <optional>

#include "session.h"
#include "tandem/group.h"

namespace tandem::python {

class PyGroup {
 public:
  // What the group's waits ask; groups made from one another share it.
  using Stop = std::shared_ptr<Interrupt>;

  // `lender`: what owns a communicator that the group is made of; kept as long as this.
  PyGroup(std::shared_ptr<Group> group, Stop stop, nb::object lender = {});

  // Runs work(Group&) without the GIL as this object's only call, see Interrupt::waiting.
  template <typename Work>
  auto turn(const Work& work) {
    const Session<Place>::Turn turn(session_);
    Group& group = *place_.group;  // close() waits for this turn's end before it lets go
    return stop_->waiting([&] { return work(group); });
  }

  // Throws Error(invalid_argument) once it is closed, or in a forked child.
  const std::shared_ptr<Group>& open() const;
  const Stop& stop() const { return stop_; }
  const nb::object& lender() const { return lender_; }
  int rank() const { return rank_; }
  int size() const { return size_; }
  bool closed() const { return session_.closed(); }
  void abort(const std::string& reason) const { open()->abort(reason); }
  // A call that is running in another thread ends the group for all ranks.
  void close() { session_.close(); }

 private:
  struct Place {
    std::shared_ptr<Group> group;
    void interrupt() { group->abort("closed while another thread was using it"); }
    void end() { group.reset(); }
    void abandon() { new std::shared_ptr<Group>(std::move(group)); }  // in a forked child the parent is the rank
  };

  nb::object lender_;
  Place place_;
  Stop stop_;
  int rank_, size_;
  Session<Place> session_;
};

// What set_communicator was given, None being null, and what owns it where it is NCCL's, to be kept as long as it is used. A communicator
// of NCCL, in any form, is Error(unsupported) unless it is `for_gpus`; Error(invalid_argument) for what is none.
struct GivenGroup {
  std::shared_ptr<Group> group;
  nb::object lender;
};
GivenGroup group_of(nb::handle communicator, bool for_gpus);

// The methods of Group that are collective operations on arrays.
void bind_collectives(nb::class_<PyGroup>& group);

}  // namespace tandem::python
