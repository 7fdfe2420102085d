"""The machine: GPUs through NVML, host memory and its limits, the disk.

No CUDA context is made, and nothing is judged.
"""
