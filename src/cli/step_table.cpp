#include "cli/step_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::cli {
namespace {

constexpr std::size_t kRows = 40;

struct Sums {
  double compute = 0, communication = 0, wait = 0;  // seconds
  double busy() const { return compute + communication; }
};

Sums sums_of(const std::vector<StepTime>& steps) {
  Sums sums;
  for (const StepTime& step : steps) {
    (step.communicates ? sums.communication : sums.compute) += step.seconds - step.waiting;
    sums.wait += step.waiting;
  }
  return sums;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

std::vector<StepTime> longest_first(std::vector<StepTime> steps) {
  std::ranges::stable_sort(steps, std::greater{}, &StepTime::seconds);
  return steps;
}

}  // namespace

RankSteps profile_often(Model& model, const RankArrays& inputs, int runs, const ProgressCallback& progress, RankArrays* outputs) {
  std::vector<RankSteps> all;
  for (int i = 0; i < runs; ++i) {
    progress("profiling", static_cast<double>(i) / runs);
    all.push_back(model.profile(inputs, outputs));
  }
  RankSteps middle = all.back();
  for (std::size_t rank = 0; rank < middle.size(); ++rank)
    for (std::size_t s = 0; s < middle[rank].size(); ++s)
      for (double StepTime::*field : {&StepTime::begin, &StepTime::seconds, &StepTime::waiting}) {
        std::vector<double> values;
        for (const RankSteps& run : all) values.push_back(run[rank].at(s).*field);
        middle[rank][s].*field = median(std::move(values));
      }
  return middle;
}

nlohmann::json steps_as_json(const RankSteps& ranks) {
  nlohmann::json out = nlohmann::json::array();
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const Sums sums = sums_of(ranks[rank]);
    nlohmann::json steps = nlohmann::json::array();
    for (const StepTime& step : longest_first(ranks[rank]))
      steps.push_back({{"step", step.step},
                       {"node", step.node},
                       {"op", step.op},
                       {"kernel", step.kernel},
                       {"kind", step.kind()},
                       {"begin_us", step.begin * 1e6},
                       {"us", step.seconds * 1e6},
                       {"waiting_us", step.waiting * 1e6}});
    out.push_back({{"rank", rank},
                   {"compute_us", sums.compute * 1e6},
                   {"communication_us", sums.communication * 1e6},
                   {"wait_us", sums.wait * 1e6},
                   {"steps", steps}});
  }
  return out;
}

void print_steps(const RankSteps& ranks) {
  std::size_t busiest = 0;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const Sums sums = sums_of(ranks[rank]);
    fmt::print("rank {}: compute {:.3f} ms, communication {:.3f} ms, wait {:.3f} ms\n", rank, sums.compute * 1e3, sums.communication * 1e3,
               sums.wait * 1e3);
    if (sums.busy() > sums_of(ranks[busiest]).busy()) busiest = rank;
  }
  if (ranks.empty()) return;
  const std::vector<StepTime> steps = longest_first(ranks[busiest]);
  const Sums sums = sums_of(steps);
  const double whole = std::max(1e-12, sums.busy() + sums.wait);
  fmt::print("steps of rank {}\n{:>10}{:>7}{:>10}  {:<14}{:<22}{:<28}{}\n", busiest, "us", "%", "wait us", "kind", "op", "kernel", "node");
  for (std::size_t i = 0; i < std::min(kRows, steps.size()); ++i)
    fmt::print("{:>10.2f}{:>7.1f}{:>10.2f}  {:<14}{:<22}{:<28}{}\n", steps[i].seconds * 1e6, 100 * steps[i].seconds / whole,
               steps[i].waiting * 1e6, steps[i].kind(), steps[i].op, steps[i].kernel, steps[i].node);
  if (steps.size() > kRows) {
    double rest = 0;
    for (std::size_t i = kRows; i < steps.size(); ++i) rest += steps[i].seconds;
    fmt::print("{:>10.2f}{:>7.1f}  in {} more, which --json lists\n", rest * 1e6, 100 * rest / whole, steps.size() - kRows);
  }
}

}  // namespace tandem::cli
