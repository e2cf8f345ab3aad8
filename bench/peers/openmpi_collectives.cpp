// OpenMPI's all-reduce, measured as bench/collectives.cpp measures ours: mpicxx -O2, mpirun -n 2.
#include <mpi.h>

#include "timing.h"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  for (const std::size_t bytes : timing::kSizes) {
    const timing::Result mine = timing::measure(
        bytes, rank, ranks, timing::kBatches,
        [](const std::vector<float>& in, std::vector<float>& out) {
          MPI_Allreduce(in.data(), out.data(), static_cast<int>(in.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        },
        [] { MPI_Barrier(MPI_COMM_WORLD); });
    std::vector<timing::Result> all(static_cast<std::size_t>(ranks));
    MPI_Gather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, 0, MPI_COMM_WORLD);
    if (rank == 0) timing::print_json("openmpi", ranks, bytes, timing::worst(all));
  }
  MPI_Finalize();
}
