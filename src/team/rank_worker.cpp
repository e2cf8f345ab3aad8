#include <new>

#include "core/check.h"
#include "team/rank_link.h"

namespace tandem {

Error current_error(int rank) {
  try {
    throw;
  } catch (const Error& error) {
    return error.at_rank(rank);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, "out of memory", {}, rank);
  } catch (const std::exception& error) {
    return Error(ErrorCode::internal, error.what(), {}, rank);
  }
}

RankWorker::RankWorker(std::shared_ptr<const RankEngine> engine, const RankContextOptions& options, std::shared_ptr<ShmRegion> region)
    : rank_(engine->rank()), rendezvous_(options.rendezvous_deadline), context_(std::make_unique<RankContext>(std::move(engine), options)) {
  join(std::move(region));
}

void RankWorker::join(std::shared_ptr<ShmRegion> region) {
  context_->set_communicator(nullptr);
  group_.reset();
  region_ = std::move(region);
  group_ = region_->attach(rank_, Deadline::after(rendezvous_));
  context_->set_communicator(group_.get());
}

RankReply RankWorker::guarded(const std::function<void(RankReply&)>& work) {
  RankReply reply;
  try {
    work(reply);
  } catch (...) {
    reply.error = current_error(rank_);
    region_->abort(ErrorCode::rank_failed, rank_, reply.error->what());
  }
  return reply;
}

RankReply RankWorker::serve(const RankRequest& request) {
  RankReply reply = guarded([&](RankReply& into) {
    context_->set_step_hook({});
    if (request.trace)
      context_->set_step_hook([&](std::span<const RankContext::StepClock> clocks) {
        into.trace.reserve(clocks.size());
        for (const auto& clock : clocks)
          into.trace.push_back({static_cast<int>(clock.step), clock.begin_ns, clock.end_ns, clock.waited_ns});
      });
    context_->set_profile(request.profile);
    context_->bind(request.symbols);
    const std::int64_t begin = monotonic_ns();
    context_->run(request.inputs, request.outputs);
    into.nanoseconds = monotonic_ns() - begin;
    into.copies = context_->copied_outputs();
    into.through_host = context_->through_host();
    into.measured = context_->measured();
  });
  context_->set_step_hook({});
  return reply;
}

RankReply RankWorker::rejoin(std::shared_ptr<ShmRegion> region) {
  return guarded([&](RankReply&) { join(std::move(region)); });
}

}  // namespace tandem
