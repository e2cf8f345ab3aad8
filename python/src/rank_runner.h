// RankRunner: a Context that reads and writes arrays of Python. What Context and a Model of one rank are made of.
#pragma once

#include "lifetime.h"
#include "ports.h"
#include "tandem/context.h"

namespace tandem::python {

// Needs the GIL but while it computes and waits. The caller sees to it that only one thread is inside.
class RankRunner {
 public:
  RankRunner(const Engine& engine, ContextOptions options, std::shared_ptr<Interrupt> interrupt);
  // `named` may hold further inputs; `outputs` (or None) arrays to write to.
  // Arrays of the engine's GPU are used where they lie: the work is given to `stream` (None: the current one) and the call returns.
  nb::dict run(nb::handle inputs, nb::handle named, nb::handle outputs, nb::handle stream = nb::none());
  // By address, dense, of the engine's device; shapes must have been set. On a GPU the work is given to `stream`, as above.
  void run_addresses(nb::handle addresses, nb::handle stream = nb::none());
  // Until what was given to the GPU is done.
  void synchronize();
  // -1 on the CPU.
  int gpu() const { return gpu_; }
  void set_profile(int profile);
  int profile() { return context().profile(); }
  int auxiliary_streams() { return context().auxiliary_streams(); }
  // Streams as stream_of() takes them; None: the context's own.
  void set_auxiliary_streams(nb::handle streams);
  void set_input_shape(nb::handle name, Shape shape);
  // From this rank's part.
  void set_local_input_shape(nb::handle name, const Shape& shape);
  Shape input_shape(nb::handle name) { return context().input_shape(inputs_.find(name)); }
  Shape output_shape(nb::handle name) { return context().output_shape(outputs_.find(name)); }
  Shape last_output_shape(nb::handle name) { return context().last_output_shape(outputs_.find(name)); }
  std::vector<bool> measured_dims(nb::handle name) { return context().measured_dims(outputs_.find(name)); }
  void prepare();
  // Returns the notices about it.
  std::vector<std::string> set_communicator(std::shared_ptr<Group> group);
  int last_copies() const { return copies_; }
  double last_seconds() const { return seconds_; }
  void interrupt() { interrupt_->end(); }
  // With the GIL released: contexts may wait for their threads to end.
  void end() { context_.reset(); }
  // Leaves it as it is, for ever.
  void abandon() { context_.release(); }

 private:
  Context& context();
  void set_shapes(const GivenArrays& given);
  Place place(nb::handle stream) const;

  PortTable inputs_, outputs_;
  std::shared_ptr<Interrupt> interrupt_;
  std::unique_ptr<Context> context_;
  std::vector<std::optional<Shape>> shapes_;  // of the arrays of the last run, per input
  std::vector<bool> whole_shape_set_;
  std::vector<Shape> output_shapes_;  // empty: not known for the shapes that are set
  std::vector<bool> measured_;        // per output: its shape depends on data, and is at most that one
  int gpu_ = -1;
  int copies_ = 0;
  double seconds_ = 0;
};

}  // namespace tandem::python
