"""The published model repositories whose real-size directories can be written, by name."""

from published.flux import FLUX_1_DEV
from published.qwen_image import QWEN_IMAGE
from published.repository import Repository
from published.sdxl import SDXL
from published.wan import WAN_2_1_1_3B, WAN_2_1_14B, WAN_2_2_I2V_A14B, WAN_2_2_T2V_A14B, WAN_2_2_TI2V_5B

REPOSITORIES: dict[str, Repository] = {
    "wan2.2-t2v-a14b": WAN_2_2_T2V_A14B,
    "wan2.2-i2v-a14b": WAN_2_2_I2V_A14B,
    "wan2.2-ti2v-5b": WAN_2_2_TI2V_5B,
    "wan2.1-t2v-14b": WAN_2_1_14B,
    "wan2.1-t2v-1.3b": WAN_2_1_1_3B,
    "flux.1-dev": FLUX_1_DEV,
    "qwen-image": QWEN_IMAGE,
    "sdxl": SDXL,
}
