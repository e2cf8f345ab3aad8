// How a RankContext runs where kernels do not read the host's memory: staged arrays, the caller's stream, recordings.
#include <algorithm>
#include <numeric>

#include "runtime/context_bound.h"
#include "runtime/context_marks.h"

namespace tandem {
namespace {

constexpr std::size_t kKeptRecordings = 8;  // per bound shape

// Records an event behind what the scope gave to the stream, however it ends.
struct RecordsAtEnd {
  ~RecordsAtEnd() {
    try {
      event.record(stream);
    } catch (const Error&) {  // the next wait says what broke
    }
  }
  Event& event;
  Stream& stream;
};

}  // namespace

void RankContext::enqueue(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, void* stream) {
  const Turn turn(*this);
  forget_measured();
  check_counts(inputs, outputs);
  struct Redirected {
    ~Redirected() { stream.redirect(nullptr); }
    Stream& stream;
  };
  stream_->redirect(stream);
  guarded([&] {
    const Redirected back{*stream_};
    require_no_recording();
    if (!is_prepared() && device_.is_recorded(*stream_))
      fail(ErrorCode::invalid_argument,
           "the stream that was given is being recorded, and these shapes were not prepared: call prepare() before the recording begins");
    const std::shared_ptr<Bound> ready = bound();
    check_pointers(*ready, inputs, outputs);
    enqueue_bound(ready, inputs, outputs);
  });
}

// The steps behind one that measures are given when the host has read what it measured.
void RankContext::require_no_recording() {
  if (measures_.empty() || !device_.is_recorded(*stream_)) return;
  const Measured& first = measures_.front();
  throw Error(ErrorCode::unsupported,
              fmt::format("the stream that was given is being recorded, and the extent '{}' is known only when this step has run: a run of "
                          "the program cannot become part of a graph",
                          first.symbol),
              label(program().steps[static_cast<std::size_t>(first.step)]));
}

void RankContext::synchronize() {
  const Turn turn(*this);
  done_->wait(*stream_);  // of whatever stream the last work was given to
  guarded([&] { wait_for_stream(); });
}

// Memory of the device for inputs and outputs that lie on the host.
void RankContext::stage(Bound& bound) {
  std::vector<std::size_t> sizes;
  for (const auto* bindings : {&program().inputs, &program().outputs})
    for (const Binding& binding : *bindings) sizes.push_back(aligned_size(bound.memory.size[static_cast<std::size_t>(binding.value)]));
  if (bound.staged.size() == sizes.size()) return;
  bound.staging = make_memory(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}));
  std::byte* next = bound.staging.data();
  for (const std::size_t size : sizes) {
    bound.staged.push_back(next);
    next += size;
  }
}

// Inputs to the device, the steps there, outputs back. Copies from and to the caller's memory hold the thread until what is before them in
// the stream is done, without a deadline; so that is waited for first.
void RankContext::run_staged(const std::shared_ptr<Bound>& bound, std::span<const std::byte* const> inputs,
                             std::span<std::byte* const> outputs) {
  const auto size = [&](const Binding& binding) { return bound->memory.size[static_cast<std::size_t>(binding.value)]; };
  stage(*bound);
  wait_for_stream();
  const std::span<std::byte* const> to(bound->staged), from = to.subspan(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) device_.copy(to[i], inputs[i], size(program().inputs[i]), *stream_);
  enqueue_bound(bound, std::vector<const std::byte*>(to.begin(), to.begin() + static_cast<std::ptrdiff_t>(inputs.size())), from);
  wait_for_stream();
  for (std::size_t i = 0; i < outputs.size(); ++i) device_.copy(outputs[i], from[i], output_bytes(*bound, i), *stream_);
  wait_for_stream();
}

void RankContext::enqueue_bound(const std::shared_ptr<Bound>& bound, std::span<const std::byte* const> inputs,
                                std::span<std::byte* const> outputs) {
  place(*bound, inputs, outputs);
  const auto work = [&] {
    run_steps(*bound);
    copy_outputs(*bound, outputs);
  };
  if (device_.is_host()) return hook_ ? run_timed(*bound, outputs) : work();
  auxiliary_->require_beside(*stream_, device_);
  struct Needed {
    std::shared_ptr<const RankEngine> engine;
    std::shared_ptr<void> joined, bound, arena, ring, stream;
    std::map<Group*, std::shared_ptr<Registration>> registered;  // goes first
  };
  if (device_.is_recorded(*stream_)) {
    device_.keep_with_recording(*stream_, std::make_shared<Needed>(engine_, joined_, bound, arena_, ring_, stream_, registered_));
    joined_->calls.leave();  // nobody tells us when it is replayed
    marks_->replay(program().steps.size());
    return work();
  }
  agree_on_collectives(*bound);
  if (others()) joined_->calls.begin(bound->shapes);
  try {
    done_->wait(*stream_);  // the arena is one
    const RecordsAtEnd done{*done_, *stream_};
    if (hook_) one_by_one([&] { run_timed(*bound, outputs); });
    else if (!measures_.empty()) one_by_one(work);
    else give_recorded(*bound, inputs, outputs, work);
  } catch (...) {
    joined_->calls.undo();
    throw;
  }
}

void RankContext::one_by_one(const std::function<void()>& steps) {
  marks_->begin(program().steps.size(), *stream_);
  steps();
  marks_->end();
}

// What a call with the same addresses needs is recorded the second time; the first one does what libraries do once.
void RankContext::give_recorded(Bound& bound, std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs,
                                const std::function<void()>& work) {
  std::vector<const std::byte*> addresses(inputs.begin(), inputs.end());
  addresses.insert(addresses.end(), outputs.begin(), outputs.end());
  addresses.push_back(arena_->data());
  addresses.push_back(static_cast<const std::byte*>(consumed_));
  auto& recorded = bound.recorded;
  const auto known = std::ranges::find(recorded, addresses, &Bound::Recorded::addresses);
  if (known == recorded.end()) {
    recorded.push_front({std::move(addresses), nullptr});
    if (recorded.size() > kKeptRecordings) recorded.pop_back();
    one_by_one(work);
  } else {
    recorded.splice(recorded.begin(), recorded, known);
    marks_->replay(program().steps.size());
    if (!known->recording) known->recording = device_.record(*stream_, work);
    known->recording->launch(*stream_);
    if (group_ && !program().steps.empty()) group_->mark(static_cast<std::int64_t>(program().steps.size()) - 1);
  }
}

}  // namespace tandem
