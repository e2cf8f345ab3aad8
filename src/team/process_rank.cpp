// Rank processes: forked from the leader, commanded over a socket pair, with inputs and outputs in shared memory.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "core/check.h"
#include "team/rank_link.h"

namespace tandem {
namespace {

using Json = nlohmann::json;
constexpr std::size_t kPageBytes = 4096;
constexpr std::uint32_t kMessageLimit = 1u << 28;

std::string system_message(int error) { return std::error_code(error, std::generic_category()).message(); }

// False if the other side is gone.
bool write_all(int fd, const void* data, std::size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t n = ::send(fd, at, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

bool read_all(int fd, void* data, std::size_t size) {
  char* at = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t n = ::recv(fd, at, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

bool send_message(int fd, const Json& message) {
  const std::string text = message.dump();
  const auto size = static_cast<std::uint32_t>(text.size());
  return write_all(fd, &size, sizeof size) && write_all(fd, text.data(), text.size());
}

std::optional<Json> read_message(int fd) {
  std::uint32_t size = 0;
  if (!read_all(fd, &size, sizeof size) || size > kMessageLimit) return std::nullopt;
  std::string text(size, '\0');
  if (!read_all(fd, text.data(), size)) return std::nullopt;
  Json message = Json::parse(text, nullptr, false);
  if (message.is_discarded()) return std::nullopt;
  return message;
}

Json to_json(const RankReply& reply) {
  Json out = {{"nanoseconds", reply.nanoseconds}};
  if (reply.error)
    out["error"] = {{"code", static_cast<int>(reply.error->code())}, {"message", reply.error->message()}, {"node", reply.error->node()},
                    {"rank", reply.error->rank()}};
  for (const TraceEvent& event : reply.trace) out["trace"].push_back({event.step, event.begin_ns, event.end_ns});
  return out;
}

RankReply reply_from(const Json& message) {
  RankReply reply;
  reply.nanoseconds = message.value("nanoseconds", std::int64_t{0});
  if (message.contains("error")) {
    const Json& e = message["error"];
    reply.error = Error(static_cast<ErrorCode>(e.at("code").get<int>()), e.at("message"), e.at("node"), e.at("rank"));
  }
  if (message.contains("trace"))
    for (const Json& event : message["trace"]) reply.trace.push_back({event[0], event[1], event[2]});
  return reply;
}

// The rank's process, from the fork to its end.
class RankProcess {
 public:
  RankProcess(const RankStart& start, int socket, SharedMemory& memory) : start_(start), socket_(socket), memory_(memory) {}

  int serve() {
    std::unique_ptr<RankWorker> worker;
    try {
      worker = std::make_unique<RankWorker>(start_);
    } catch (const std::exception& error) {
      const auto* known = dynamic_cast<const Error*>(&error);
      RankReply reply;
      reply.error = (known ? *known : Error(ErrorCode::internal, error.what())).at_rank(start_.rank);
      if (start_.region) start_.region->abort(ErrorCode::rank_failed, start_.rank, reply.error->what());
      send_message(socket_, to_json(reply));
      return 1;
    }
    if (!send_message(socket_, to_json({}))) return 1;
    while (const auto message = read_message(socket_)) {
      if (message->contains("close")) return 0;
      if (!send_message(socket_, to_json(worker->serve(request_from(*message))))) return 1;
    }
    return 1;  // the leader is gone
  }

 private:
  RankRequest request_from(const Json& message) {
    const auto size = message.at("size").get<std::size_t>();
    if (!mapping_ || mapping_->bytes() < size) mapping_ = memory_.map(0, size);
    RankRequest request;
    for (const auto& [name, value] : message.at("symbols").items()) request.symbols[name] = value.get<std::int64_t>();
    for (const Json& offset : message.at("inputs")) request.inputs.push_back(mapping_->data() + offset.get<std::size_t>());
    for (const Json& offset : message.at("outputs")) request.outputs.push_back(mapping_->data() + offset.get<std::size_t>());
    request.trace = message.at("trace");
    return request;
  }

  const RankStart& start_;
  int socket_;
  SharedMemory& memory_;
  std::unique_ptr<Mapping> mapping_;
};

class ProcessRank final : public RankLink {
 public:
  explicit ProcessRank(RankStart start) : rank_(start.rank), memory_(SharedMemory::create("tandem-io", kPageBytes)), region_(start.region) {
    int sockets[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) fail(ErrorCode::io, "cannot make a socket pair: {}", system_message(errno));
    const pid_t leader = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) {
      const int error = errno;
      ::close(sockets[0]);
      ::close(sockets[1]);
      fail(ErrorCode::io, "cannot start a process for rank {}: {}", rank_, system_message(error));
    }
    if (pid_ == 0) {
      // Dies with the leader, and leaves signals of the terminal to it.
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != leader) ::_exit(1);
      ::signal(SIGINT, SIG_IGN);
      ::signal(SIGTERM, SIG_DFL);
      ::close(sockets[0]);
      const int status = RankProcess(start, sockets[1], memory_).serve();
      ::_exit(status);
    }
    ::close(sockets[1]);
    socket_ = sockets[0];
  }

  ~ProcessRank() override {
    close(Deadline::after(kDrainDeadline));
    if (socket_ >= 0) ::close(socket_);
  }

  bool direct() const override { return false; }
  int process() const override { return pid_; }

  std::byte* block(std::size_t bytes) override {
    if (!mapping_ || mapping_->bytes() < bytes) {
      mapping_.reset();
      const std::size_t size = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
      memory_.grow(size);
      mapping_ = memory_.map(0, size);
    }
    return mapping_->data();
  }

  void send(const RankRequest& request) override {
    Json message = {{"size", mapping_->bytes()}, {"trace", request.trace}, {"inputs", Json::array()}, {"outputs", Json::array()}, {"symbols", Json::object()}};
    for (const auto& [name, value] : request.symbols) message["symbols"][name] = value;
    for (const std::byte* at : request.inputs) message["inputs"].push_back(at - mapping_->data());
    for (const std::byte* at : request.outputs) message["outputs"].push_back(at - mapping_->data());
    send_message(socket_, message);  // a rank that is gone shows at receive()
  }

  std::optional<RankReply> receive(std::chrono::nanoseconds limit) override {
    pollfd ready{socket_, POLLIN, 0};
    const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(limit).count();
    if (::poll(&ready, 1, static_cast<int>(milliseconds)) <= 0) return std::nullopt;
    if (const auto message = read_message(socket_)) return reply_from(*message);
    RankReply reply;
    reply.error = Error(ErrorCode::rank_failed, how_it_ended(), {}, rank_);
    if (region_) region_->mark_failed(rank_, reply.error->message());
    return reply;
  }

  void close(Deadline deadline) override {
    if (pid_ <= 0) return;
    if (!deadline.expired()) send_message(socket_, {{"close", true}});
    while (!reap(0) && !deadline.expired()) ::usleep(1000);
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    const Deadline last = Deadline::after(std::chrono::seconds(2));
    while (!reap(0) && !last.expired()) ::usleep(1000);
    pid_ = -1;  // one that the kernel does not reap is not awaited
  }

 private:
  // True once the process is reaped; remembers its status.
  bool reap(int flags) {
    if (pid_ <= 0) return true;
    if (::waitpid(pid_, &status_, WNOHANG | flags) != pid_) return false;
    pid_ = -1;
    return true;
  }

  std::string how_it_ended() {
    const Deadline deadline = Deadline::after(std::chrono::milliseconds(500));
    while (!reap(0) && !deadline.expired()) ::usleep(1000);
    if (pid_ > 0) return "its process closed the connection";
    if (WIFSIGNALED(status_)) return fmt::format("its process was killed by signal {} ({})", WTERMSIG(status_), ::strsignal(WTERMSIG(status_)));
    return fmt::format("its process ended with status {}", WEXITSTATUS(status_));
  }

  int rank_;
  SharedMemory memory_;
  std::shared_ptr<ShmRegion> region_;
  std::unique_ptr<Mapping> mapping_;
  int socket_ = -1;
  pid_t pid_ = -1;
  int status_ = 0;
};

}  // namespace

std::unique_ptr<RankLink> start_process_rank(RankStart start) { return std::make_unique<ProcessRank>(std::move(start)); }

}  // namespace tandem
