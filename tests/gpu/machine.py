"""Where `kernels.py` runs kernels: a GPU through the driver's own interface, or the CPU through the emulation that the
Rust tests use. Owns compilation, memory and launches; knows no kernel."""

import ctypes
import os
import re
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNELS = os.path.join(ROOT, "crates", "photonc-launch", "src", "cuda", "kernels")
TYPES = {"f32": 0, "bf16": 1, "f16": 2}


def macros(source, dtype, size):
    names, sized = [f"-DPHOTONC_TYPE={TYPES[dtype]}"], {"skinny.cu": "ROWS", "codes.cu": "SCHEME"}
    sized |= dict.fromkeys(["attention.cu", "window.cu", "stream.cu"], "HEAD_DIM")
    return names + ([f"-DPHOTONC_{sized[source]}={size}"] if source in sized else [])


def strings(texts):
    return (ctypes.c_char_p * len(texts))(*[text.encode() for text in texts])


def nvrtc_library():
    places = ["libnvrtc.so.13", "libnvrtc.so.12", "/usr/local/cuda/lib64/libnvrtc.so"]
    for folder in sys.path:
        for sub in ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"]:
            for version in [13, 12]:
                places.append(os.path.join(folder, sub, f"libnvrtc.so.{version}"))
    for place in places:
        try:
            return ctypes.CDLL(place)
        except OSError:
            pass
    sys.exit("no NVRTC library found: install nvidia-cuda-nvrtc or the CUDA toolkit")


class Compiler:
    """NVRTC, with the kernels' headers in memory."""

    def __init__(self):
        self.library = nvrtc_library()

    def compile(self, source, options):
        """The CUBIN and the log; exits where the source does not compile."""
        headers = sorted(name for name in os.listdir(KERNELS) if name.endswith(".cuh"))
        texts = [open(os.path.join(KERNELS, name)).read() for name in headers]
        program, size = ctypes.c_void_p(), ctypes.c_size_t()
        text = open(os.path.join(KERNELS, source)).read().encode()
        self.library.nvrtcCreateProgram(
            ctypes.byref(program), text, source.encode(), len(headers), strings(texts), strings(headers))
        failed = self.library.nvrtcCompileProgram(program, len(options), strings(options))
        self.library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetProgramLog(program, log)
        if failed:
            sys.exit(f"{source} {' '.join(options)} does not compile:\n{log.value.decode()}")
        self.library.nvrtcGetCUBINSize(program, ctypes.byref(size))
        cubin = ctypes.create_string_buffer(size.value)
        self.library.nvrtcGetCUBIN(program, cubin)
        self.library.nvrtcDestroyProgram(ctypes.byref(program))
        return cubin.raw, log.value.decode()


class Gpu:
    """The first GPU, its launches in order on one stream."""

    name = "gpu"

    def __init__(self):
        self.driver = ctypes.CDLL("libcuda.so.1")
        self.compiler = Compiler()
        self.units, self.functions = {}, {}
        device, context, self.stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(self.stream), 1)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(major), 75, device)
        self.call("cuDeviceGetAttribute", ctypes.byref(minor), 76, device)
        self.arch = f"sm_{major.value}{minor.value}"

    def call(self, name, *arguments):
        code = getattr(self.driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.driver.cuGetErrorName(code, ctypes.byref(text))
            sys.exit(f"{name}: {text.value and text.value.decode()}")

    def load(self, units):
        """Compiles units, several at a time: NVRTC works outside Python's lock."""
        from concurrent.futures import ThreadPoolExecutor

        options = [f"--gpu-architecture={self.arch}", "--std=c++17", "-lineinfo"]
        missing = sorted(set(units) - set(self.units))
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda u: self.compiler.compile(u[0], options + macros(*u))[0], missing))
        for unit, cubin in zip(missing, made):
            module = ctypes.c_void_p()
            self.call("cuModuleLoadData", ctypes.byref(module), cubin)
            self.units[unit] = module

    def function(self, unit, name, shared_bytes):
        key = (unit, name)
        if key not in self.functions:
            function = ctypes.c_void_p()
            self.call("cuModuleGetFunction", ctypes.byref(function), self.units[unit], name.encode())
            self.functions[key] = [function, 0]
        entry = self.functions[key]
        if shared_bytes > max(entry[1], 48 << 10):
            self.call("cuFuncSetAttribute", entry[0], 8, shared_bytes)
            entry[1] = shared_bytes
        return entry[0]

    def allocate(self, size):
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return address.value

    def free(self, address):
        self.call("cuMemFree_v2", ctypes.c_uint64(address))

    def write(self, address, data):
        data = np.ascontiguousarray(data)
        # On the stream of the launches: a copy on another one may still be under way when a kernel begins.
        self.call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), data.ctypes.data_as(ctypes.c_void_p),
                  ctypes.c_size_t(data.nbytes), self.stream)

    def read(self, address, size):
        data = np.empty(size, np.uint8)
        self.call("cuStreamSynchronize", self.stream)
        self.call("cuMemcpyDtoH_v2", data.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(address),
                  ctypes.c_size_t(size))
        return data

    def launch(self, unit, shape, arguments, overlap=False):
        function = self.function(unit, shape["name"], shape["shared_bytes"])
        parameter = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        config = LaunchConfig(*shape["grid"], shape["threads"], 1, 1, shape["shared_bytes"], self.stream.value)
        attribute = LaunchAttribute(6, 0, 1)  # programmatic stream serialization
        config.attributes, config.count = ctypes.pointer(attribute), int(overlap)
        self.call("cuLaunchKernelEx", ctypes.byref(config), function, parameter, None)

    def time_ms(self, launches, repeats):
        """The median over `repeats` of the time of all launches, recorded as one graph."""
        graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuStreamBeginCapture_v2", self.stream, 1)
        for launch in launches:
            launch()
        self.call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        self.call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, ctypes.c_uint64(0))
        begin, end, times = ctypes.c_void_p(), ctypes.c_void_p(), []
        self.call("cuEventCreate", ctypes.byref(begin), 0)
        self.call("cuEventCreate", ctypes.byref(end), 0)
        for _ in range(repeats + 3):
            self.call("cuEventRecord", begin, self.stream)
            self.call("cuGraphLaunch", ready, self.stream)
            self.call("cuEventRecord", end, self.stream)
            self.call("cuEventSynchronize", end)
            took = ctypes.c_float()
            self.call("cuEventElapsedTime", ctypes.byref(took), begin, end)
            times.append(took.value)
        self.call("cuGraphExecDestroy", ready)
        self.call("cuGraphDestroy", graph)
        return float(np.median(times[3:]))


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: an identifier and 64 bytes of value."""

    _fields_ = [("id", ctypes.c_int), ("gap", ctypes.c_int), ("value", ctypes.c_int), ("rest", ctypes.c_char * 60)]


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [(name, ctypes.c_uint) for name in
                ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "shared_bytes"]]
    _fields_ += [("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(LaunchAttribute)), ("count", ctypes.c_uint)]


class EmulatedLaunch(ctypes.Structure):
    """emulate::Launch of tests/harness/emulate.h."""

    _fields_ = [
        ("arguments", ctypes.c_void_p), ("argument_bytes", ctypes.c_uint64), ("grid", ctypes.c_uint32 * 3),
        ("threads", ctypes.c_uint32), ("shared_bytes", ctypes.c_uint32), ("workers", ctypes.c_uint32),
        ("seed", ctypes.c_uint64), ("message", ctypes.c_char_p), ("message_bytes", ctypes.c_uint64)]


class Emulation:
    """The kernels built by g++ for this machine."""

    name = "emulation"

    def __init__(self, header):
        self.header, self.units, self.memory = os.path.abspath(header), {}, {}
        self.folder = tempfile.mkdtemp(prefix="photonc-kernels-")

    def load(self, units):
        for unit in sorted(set(units) - set(self.units)):
            self.units[unit] = self.build(unit)

    def build(self, unit):
        stem = os.path.join(self.folder, "-".join(str(part) for part in unit))
        base = ["g++", "-std=c++20", "-O1", "-fPIC", "-fno-gnu-unique", "-fvisibility=hidden", "-w", "-DPHOTONC_EMULATE=1", "-I", KERNELS, *macros(*unit)]
        source = os.path.join(KERNELS, unit[0])
        flat = subprocess.run([*base, "-E", "-P", "-x", "c++", source], check=True, capture_output=True, text=True).stdout
        kernels = re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(\s*const\s+__grid_constant__\s+(\w+)", flat)
        entries = "".join(
            f'extern "C" __attribute__((visibility("default"))) int launch_{name}(const emulate::Launch *l) {{ return emulate::launch<{arguments}>({name}, 1024, *l); }}\n'
            for name, arguments in kernels)
        text = f'#include "{self.header}"\n#define __global__\n#define __launch_bounds__(...)\n#include "{source}"\n{entries}'
        with open(stem + ".cc", "w") as file:
            file.write(text)
        subprocess.run([*base, "-shared", stem + ".cc", "-o", stem + ".so"], check=True)
        return ctypes.CDLL(stem + ".so")

    def allocate(self, size):
        data = np.zeros(size + 512, np.uint8)
        address = (data.ctypes.data + 255) // 256 * 256
        self.memory[address] = data
        return address

    def free(self, address):
        del self.memory[address]

    def write(self, address, data):
        data = np.ascontiguousarray(data)
        ctypes.memmove(address, data.ctypes.data, data.nbytes)

    def read(self, address, size):
        data = np.empty(size, np.uint8)
        ctypes.memmove(data.ctypes.data, address, size)
        return data

    def launch(self, unit, shape, arguments, overlap=False):
        message = ctypes.create_string_buffer(1000)
        launch = EmulatedLaunch(
            ctypes.addressof(arguments), ctypes.sizeof(arguments), (ctypes.c_uint32 * 3)(*shape["grid"]),
            shape["threads"], shape["shared_bytes"], 2, 7, ctypes.cast(message, ctypes.c_char_p), 1000)
        if getattr(self.units[unit], "launch_" + shape["name"])(ctypes.byref(launch)):
            sys.exit(f"{shape['name']}: {message.value.decode()}")
