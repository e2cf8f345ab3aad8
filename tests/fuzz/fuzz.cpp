// Drives a fuzz target: fuzz_NAME [--seconds N] [--seed S] [--last FILE] [SEEDS…]
// Runs every seed (files, or all files of folders), then changes of them, and keeps those that reach new code, until the time is over;
// N is 0, or the environment's FUZZ_SECONDS.
// The input being tried lies in FILE; after a finding, `fuzz_NAME FILE` shows it again.
#include "fuzz/fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <stdexcept>

#include "fuzz/coverage.h"
#include "fuzz/mutate.h"
#include "tandem/error.h"

namespace {

constexpr std::size_t kLargestAllocation = std::size_t{256} << 20;
constexpr long kMostMemory = 3l << 20;  // KiB resident, the sanitizer's own included
constexpr int kSecondsPerInput = 20;    // of CPU time

}  // namespace

// An input that asks for too much memory gets what the system would say in the end.
void* operator new(std::size_t size) {
  void* p = size > kLargestAllocation ? nullptr : std::malloc(std::max<std::size_t>(size, 1));
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return size > kLargestAllocation ? nullptr : std::malloc(std::max<std::size_t>(size, 1));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }

namespace tandem::fuzz {

void refusing(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    if (error.code() == ErrorCode::internal) throw;
  }
}

void expect(bool holds, const std::string& what) {
  if (!holds) throw std::logic_error(what);
}

namespace {

// The input being tried, in a file that outlives the process.
class LastInput {
 public:
  explicit LastInput(const std::string& path) : path_(path), fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (fd_ < 0) throw std::runtime_error("cannot write " + path);
  }
  ~LastInput() {
    ::close(fd_);
    ::unlink(path_.c_str());
  }
  LastInput(const LastInput&) = delete;
  void put(const std::string& input) const {
    if (::pwrite(fd_, input.data(), input.size(), 0) < 0 || ::ftruncate(fd_, static_cast<off_t>(input.size())) < 0)
      throw std::runtime_error("cannot write " + path_);
  }

 private:
  std::string path_;
  int fd_;
};

void too_slow(int) {
  constexpr char kText[] = "finding: one input took too long\n";
  (void)!::write(2, kText, sizeof kText - 1);
  std::abort();
}

void limit_time(int seconds) {
  const itimerval limit = {{0, 0}, {seconds, 0}};
  ::setitimer(ITIMER_PROF, &limit, nullptr);
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Options {
  double seconds = std::getenv("FUZZ_SECONDS") ? std::atof(std::getenv("FUZZ_SECONDS")) : 0;
  std::uint64_t seed = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) % 1000000;
  std::string last = "last_input";
  std::vector<std::filesystem::path> seeds;

  Options(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      if (word == "--seconds" && i + 1 < argc) seconds = std::atof(argv[++i]);
      else if (word == "--seed" && i + 1 < argc) seed = std::strtoull(argv[++i], nullptr, 10);
      else if (word == "--last" && i + 1 < argc) last = argv[++i];
      else if (!std::filesystem::is_directory(word)) seeds.emplace_back(word);
      else
        for (const auto& entry : std::filesystem::directory_iterator(word))
          if (entry.is_regular_file()) seeds.push_back(entry.path());
    }
    std::ranges::sort(seeds);
  }
};

class Fuzzer {
 public:
  explicit Fuzzer(const Options& options) : options_(options), last_(options.last), mutator_(options.seed) {}

  void run() {
    for (const auto& path : options_.seeds) {
      const std::string text = read_file(path);
      try_input(text, true);
      for (const std::string& seed : seeds_in(text)) try_input(seed, true);
    }
    for (const std::string& seed : own_seeds()) try_input(seed, true);
    const std::size_t seeds = corpus_.size();
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(options_.seconds);
    while (std::chrono::steady_clock::now() < end) try_input(mutator_.changed(pick(), pick()), false);
    std::printf("%zu inputs tried from %zu seeds, %zu kept for reaching new code, %zu edges, 0 findings\n", tried_, seeds,
                corpus_.size() - seeds, edges_);
  }

 private:
  // Every input that reached new code, the younger and the shorter the likelier.
  const std::string& pick() {
    const std::string* best = nullptr;
    for (int i = 0; i < 3; ++i) {
      const std::string& one = corpus_[mutator_.below(2) ? mutator_.below(corpus_.size())
                                                         : corpus_.size() - 1 - mutator_.below(std::min<std::size_t>(corpus_.size(), 64))];
      if (best == nullptr || one.size() < best->size()) best = &one;
    }
    return *best;
  }

  void try_input(const std::string& input, bool is_seed) {
    last_.put(input);
    // A copy of its own size, so that reading past the end is seen.
    const std::vector<std::uint8_t> bytes(input.begin(), input.end());
    clear_coverage();
    limit_time(kSecondsPerInput);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    limit_time(0);
    ++tried_;
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    expect(usage.ru_maxrss < kMostMemory, "one input took " + std::to_string(usage.ru_maxrss >> 10) + " MiB");
    const std::size_t fresh = merge_coverage();
    edges_ += fresh;
    if (fresh > 0 || (is_seed && edges_ == 0)) corpus_.push_back(input);  // no edges: built without coverage
  }

  const Options& options_;
  LastInput last_;
  Mutator mutator_;
  std::vector<std::string> corpus_;
  std::size_t tried_ = 0, edges_ = 0;
};

}  // namespace
}  // namespace tandem::fuzz

int main(int argc, char** argv) {
  const tandem::fuzz::Options options(argc, argv);
  std::printf("seed %llu, %g s\n", static_cast<unsigned long long>(options.seed), options.seconds);
  std::fflush(stdout);
  std::signal(SIGPROF, tandem::fuzz::too_slow);
  tandem::fuzz::Fuzzer(options).run();  // what it throws ends the program, and the input stays
}
