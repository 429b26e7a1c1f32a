"""What `gpu_cost` may count at most: today's figures, which a change must not cross, and the goals.

`overtone bench gpu_cost --bars` prints what is counted in this form.
"""

from collections.abc import Mapping

#: Row -> figure -> what is wanted, where that is less.
GOALS: Mapping[str, Mapping[str, float]] = {
    "decode base": {"waits": 1},
    "prompt base": {"waits": 1},
    "decode fourierft qv": {"launches": 8, "MB": 3},
    "decode fourierft seven": {"launches": 24, "MB": 12},
    **{
        f"merge {method} {linear}": {"of read and write": 1.5}
        for method in ("fourierft", "loca", "waveletft", "lora")
        for linear in ("q", "k", "gate", "down")
    },
    **{
        f"load {method} {which}": {"copies": 1}
        for method in ("fourierft", "loca", "waveletft", "lora")
        for which in ("qv", "seven")
    },
}

#: Row -> the least share of the base's speed that is wanted, by the estimate.
SPEEDS: Mapping[str, float] = {"decode fourierft qv": 0.97, "decode fourierft seven": 0.95}

#: Row -> figure -> the most it may be. Steps: launches and MB a layer, for adapters those beyond
#: the base's, and waits of the whole step. Merges: bytes over those of reading and writing the
#: weight. Loads: copies from host memory for an adapter of 32 layers.
BARS: Mapping[str, Mapping[str, float]] = {
    "decode base": {"launches": 15, "MB": 464.815, "waits": 1},
    "decode merged qv": {"launches": 0, "MB": 0, "waits": 1},
    "decode merged seven": {"launches": 0, "MB": 0, "waits": 1},
    "decode c3a qv": {"launches": 20, "MB": 64.555, "waits": 1},
    "decode c3a seven": {"launches": 70, "MB": 626.793, "waits": 1},
    "decode clora qv": {"launches": 3, "MB": 14.558, "waits": 1},
    "decode clora seven": {"launches": 11, "MB": 91.124, "waits": 1},
    "decode fourierft qv": {"launches": 8, "MB": 3, "waits": 1},
    "decode fourierft seven": {"launches": 24, "MB": 12, "waits": 1},
    "decode loca qv": {"launches": 3, "MB": 2.71, "waits": 1},
    "decode loca seven": {"launches": 11, "MB": 13.481, "waits": 1},
    "decode lora qv": {"launches": 3, "MB": 14.558, "waits": 1},
    "decode lora seven": {"launches": 11, "MB": 91.124, "waits": 1},
    "decode shira qv": {"launches": 20, "MB": 1313.867, "waits": 1},
    "decode shira seven": {"launches": 70, "MB": 8087.538, "waits": 1},
    "decode vera qv": {"launches": 8, "MB": 13.665, "waits": 1},
    "decode vera seven": {"launches": 29, "MB": 102.892, "waits": 1},
    "decode waveletft qv": {"launches": 3, "MB": 1.864, "waits": 1},
    "decode waveletft seven": {"launches": 11, "MB": 10.901, "waits": 1},
    "prompt base": {"launches": 28, "MB": 494.511, "waits": 1},
    "prompt c3a qv": {"launches": 24, "MB": 47.193, "waits": 1},
    "prompt c3a seven": {"launches": 84, "MB": 312.519, "waits": 1},
    "prompt clora qv": {"launches": 3, "MB": 58.229, "waits": 1},
    "prompt clora seven": {"launches": 11, "MB": 364.495, "waits": 1},
    "prompt fourierft qv": {"launches": 3, "MB": 8.279, "waits": 1},
    "prompt fourierft seven": {"launches": 11, "MB": 44.964, "waits": 1},
    "prompt loca qv": {"launches": 3, "MB": 10.839, "waits": 1},
    "prompt loca seven": {"launches": 11, "MB": 53.924, "waits": 1},
    "prompt lora qv": {"launches": 3, "MB": 58.229, "waits": 1},
    "prompt lora seven": {"launches": 11, "MB": 364.495, "waits": 1},
    "prompt shira qv": {"launches": 20, "MB": 5255.465, "waits": 1},
    "prompt shira seven": {"launches": 70, "MB": 32350.15, "waits": 1},
    "prompt vera qv": {"launches": 8, "MB": 26.346, "waits": 1},
    "prompt vera seven": {"launches": 29, "MB": 197.657, "waits": 1},
    "prompt waveletft qv": {"launches": 3, "MB": 6.976, "waits": 1},
    "prompt waveletft seven": {"launches": 11, "MB": 40.982, "waits": 1},
    "load c3a qv": {"copies": 1},
    "load c3a seven": {"copies": 1},
    "load clora qv": {"copies": 1},
    "load clora seven": {"copies": 1},
    "load fourierft qv": {"copies": 1},
    "load fourierft seven": {"copies": 1},
    "load loca qv": {"copies": 1},
    "load loca seven": {"copies": 1},
    "load lora qv": {"copies": 1},
    "load lora seven": {"copies": 1},
    "load shira qv": {"copies": 1},
    "load shira seven": {"copies": 1},
    "load vera qv": {"copies": 1},
    "load vera seven": {"copies": 1},
    "load waveletft qv": {"copies": 1},
    "load waveletft seven": {"copies": 1},
    "merge c3a q": {"of read and write": 8.032, "launches": 7},
    "merge c3a k": {"of read and write": 8.032, "launches": 7},
    "merge c3a gate": {"of read and write": 8.032, "launches": 7},
    "merge c3a down": {"of read and write": 8.032, "launches": 7},
    "merge clora q": {"of read and write": 7.024, "launches": 7},
    "merge clora k": {"of read and write": 7.036, "launches": 7},
    "merge clora gate": {"of read and write": 7.021, "launches": 7},
    "merge clora down": {"of read and write": 7.01, "launches": 7},
    "merge fourierft q": {"of read and write": 1.5, "launches": 4},
    "merge fourierft k": {"of read and write": 1.5, "launches": 4},
    "merge fourierft gate": {"of read and write": 1.5, "launches": 4},
    "merge fourierft down": {"of read and write": 1.5, "launches": 4},
    "merge loca q": {"of read and write": 1.5, "launches": 35},
    "merge loca k": {"of read and write": 1.5, "launches": 35},
    "merge loca gate": {"of read and write": 1.5, "launches": 35},
    "merge loca down": {"of read and write": 1.5, "launches": 35},
    "merge lora q": {"of read and write": 1.5, "launches": 1},
    "merge lora k": {"of read and write": 1.5, "launches": 1},
    "merge lora gate": {"of read and write": 1.5, "launches": 1},
    "merge lora down": {"of read and write": 1.5, "launches": 1},
    "merge shira q": {"of read and write": 1.547, "launches": 16},
    "merge shira k": {"of read and write": 2.368, "launches": 16},
    "merge shira gate": {"of read and write": 1.352, "launches": 16},
    "merge shira down": {"of read and write": 1.352, "launches": 16},
    "merge vera q": {"of read and write": 7.376, "launches": 6},
    "merge vera k": {"of read and write": 7.938, "launches": 6},
    "merge vera gate": {"of read and write": 7.242, "launches": 6},
    "merge vera down": {"of read and write": 7.242, "launches": 6},
    "merge waveletft q": {"of read and write": 1.5, "launches": 2},
    "merge waveletft k": {"of read and write": 1.5, "launches": 2},
    "merge waveletft gate": {"of read and write": 1.5, "launches": 2},
    "merge waveletft down": {"of read and write": 1.5, "launches": 2},
}
