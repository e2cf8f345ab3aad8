#include "rank_runner.h"

#include <fmt/format.h>

#include <algorithm>

#include "device_array.h"
#include "progress.h"
#include "tandem/error.h"

namespace tandem::python {
namespace {

std::unique_ptr<Context> make_context(const Engine& engine, ContextOptions options, const std::shared_ptr<Interrupt>& interrupt) {
  options.stop = [interrupt] { return interrupt->stop(); };
  if (!options.progress) options.progress = progress_callback(nb::none());  // a signal is to end long loading too
  const nb::gil_scoped_release release;
  return std::make_unique<Context>(engine, options);
}

// Looks where the engine's weights are, for which another thread may have to be waited for.
int gpu_of_rank(const Context& context) {
  const nb::gil_scoped_release release;
  return context.gpu();
}

}  // namespace

RankRunner::RankRunner(const Engine& engine, ContextOptions options, std::shared_ptr<Interrupt> interrupt)
    : inputs_(engine.inputs(), "input"),
      outputs_(engine.outputs(), "output"),
      interrupt_(std::move(interrupt)),
      context_(make_context(engine, std::move(options), interrupt_)),
      shapes_(inputs_.size()),
      whole_shape_set_(inputs_.size(), false),
      gpu_(gpu_of_rank(*context_)) {}

Context& RankRunner::context() {
  if (!context_) throw Error(ErrorCode::invalid_argument, "it is closed");
  return *context_;
}

void RankRunner::set_profile(int profile) {
  context().set_profile(profile);
  output_shapes_.clear();  // whether the shapes fit is looked at again
}

void RankRunner::set_input_shape(nb::handle name, Shape shape) {
  const std::size_t i = inputs_.find(name);
  context().set_input_shape(i, std::move(shape));
  shapes_[i].reset();
  whole_shape_set_[i] = true;
  output_shapes_.clear();
}

void RankRunner::set_local_input_shape(nb::handle name, const Shape& shape) {
  const std::size_t i = inputs_.find(name);
  context().set_local_input_shape(i, shape);
  shapes_[i].reset();
  whole_shape_set_[i] = true;
  output_shapes_.clear();
}

std::vector<std::string> RankRunner::set_communicator(std::shared_ptr<Group> group) {
  Context& ready = context();
  const nb::gil_scoped_release release;  // to leave the group before may wait for a GPU
  ready.set_communicator(std::move(group));
  return ready.notices();
}

// What the arrays say about shapes that the caller has not set.
void RankRunner::set_shapes(const GivenArrays& given) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const Shape& shape = given[i]->shape();
    if (shapes_[i] && *shapes_[i] == shape) continue;
    output_shapes_.clear();
    shapes_[i].reset();
    if (!whole_shape_set_[i]) context().set_local_input_shape(i, shape);
  }
  if (!output_shapes_.empty()) return;
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    const Shape expected = context().input_shape(i);
    if (given[i]->shape() != expected)
      throw Error(ErrorCode::invalid_argument, fmt::format("{} has shape {}, expected {}: the part of this rank", inputs_.label(i),
                                                           to_string(given[i]->shape()), to_string(expected)));
  }
  std::vector<Shape> shapes;
  measured_.clear();
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    shapes.push_back(context().output_shape(i));
    const std::vector<bool> dims = context().measured_dims(i);
    measured_.push_back(std::find(dims.begin(), dims.end(), true) != dims.end());
  }
  for (std::size_t i = 0; i < inputs_.size(); ++i) shapes_[i] = given[i]->shape();
  output_shapes_ = std::move(shapes);
}

Place RankRunner::place(nb::handle stream) const {
  if (gpu_ >= 0) return {gpu_, stream.is_none() ? current_stream(gpu_) : stream_of(stream)};
  if (!stream.is_none() && stream_of(stream))
    throw Error(ErrorCode::invalid_argument, "the engine is for the device cpu, whose ranks have no streams");
  return {};
}

nb::dict RankRunner::run(nb::handle inputs, nb::handle named, nb::handle outputs, nb::handle stream) {
  Context& ready = context();  // stays, also if close() lets go of it meanwhile
  Place where = place(stream);
  GivenArrays given(inputs_, where), wanted(outputs_, where);
  given.take(inputs);
  given.take(named);
  given.require_all();
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    if (!given[i])
      throw Error(ErrorCode::invalid_argument, fmt::format("{} is a list; a context is one rank and takes one array", inputs_.label(i)));
  set_shapes(given);
  if (!outputs.is_none()) {
    wanted.take(outputs);
    wanted.require_writable(given);
  }
  const bool on_gpu = given.on_gpu();
  for (std::size_t i = 0; i < outputs_.size(); ++i)
    if (wanted[i] && wanted[i]->on_gpu() != on_gpu)
      throw Error(ErrorCode::invalid_argument, fmt::format("the array for {} lies on {}, the inputs on {}", outputs_.label(i),
                                                           on_gpu ? "the host" : "a GPU", on_gpu ? "a GPU" : "the host"));
  if (!on_gpu) where = {};
  std::vector<const void*> in(inputs_.size());
  std::vector<void*> out(outputs_.size());
  std::vector<std::shared_ptr<std::byte>> packed;
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (!given[i]->contiguous()) packed.push_back(given[i]->packed_copy());
    in[i] = given[i]->contiguous() ? given[i]->data() : packed.back().get();
  }
  nb::dict result;
  std::vector<MadeArray> made(outputs_.size());
  const ArrayKind kind = given.kind() == ArrayKind::other ? ArrayKind::numpy : given.kind();
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (wanted[i] && wanted[i]->shape() != output_shapes_[i])
      throw Error(ErrorCode::invalid_argument, fmt::format("the array for {} has shape {}, expected {}", outputs_.label(i),
                                                           to_string(wanted[i]->shape()), to_string(output_shapes_[i])));
    if (!wanted[i]) made[i] = make_array(kind, outputs_[i].dtype, output_shapes_[i], where);
    out[i] = wanted[i] ? wanted[i]->data() : made[i].data;
  }
  interrupt_->waiting([&] {
    const auto begin = std::chrono::steady_clock::now();
    if (on_gpu) ready.enqueue(in, out, where.stream ? where.stream : default_stream());
    else ready.run(in, out);
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  });
  copies_ = static_cast<int>(packed.size()) + ready.last_copies();
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (measured_[i] && !wanted[i]) made[i].object = narrowed(made[i].object, ready.last_output_shape(i));
    nb::object array = wanted[i] ? nb::borrow(wanted[i]->object()) : given_back(std::move(made[i]), given);
    if (measured_[i] && wanted[i]) array = narrowed(array, ready.last_output_shape(i));
    if (PyDict_SetItem(result.ptr(), outputs_.name(i).ptr(), array.ptr()) != 0) throw nb::python_error();
  }
  return result;
}

void RankRunner::run_addresses(nb::handle addresses, nb::handle stream) {
  std::vector<const void*> in(inputs_.size());
  std::vector<void*> out(outputs_.size());
  const auto address = [&](const PortTable& table, std::size_t i) {
    const nb::object value = nb::borrow(addresses).attr("get")(table.name(i));
    if (value.is_none()) throw Error(ErrorCode::invalid_argument, table.label(i) + " has no address");
    return reinterpret_cast<void*>(nb::cast<std::uintptr_t>(value));
  };
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = address(inputs_, i);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = address(outputs_, i);
  Context& ready = context();
  const Place where = place(stream);
  interrupt_->waiting([&] {
    if (gpu_ >= 0) ready.enqueue(in, out, where.stream ? where.stream : default_stream());
    else ready.run(in, out);
  });
  copies_ = ready.last_copies();
}

void RankRunner::set_auxiliary_streams(nb::handle streams) {
  std::vector<void*> handles;
  for (const nb::handle stream : streams) {
    void* const given = stream.is_none() ? nullptr : stream_of(stream);
    handles.push_back(given || stream.is_none() ? given : default_stream());
  }
  context().set_auxiliary_streams(handles);
}

void RankRunner::synchronize() {
  Context& ready = context();
  interrupt_->waiting([&] { ready.synchronize(); });
}

void RankRunner::prepare() {
  Context& ready = context();
  interrupt_->waiting([&] { ready.prepare(); });
}

}  // namespace tandem::python
