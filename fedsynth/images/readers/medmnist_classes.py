"""What is published about the MedMNIST sets: the names of their classes, and where patients have several images.

From https://github.com/MedMNIST/MedMNIST, `medmnist/info.py` of versions 2 and 3. Class i is entry i.
"""

_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip

CLASSES: dict[str, tuple[str, ...]] = {
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
    "breastmnist": ("malignant", "normal or benign"),
    "dermamnist": (
        "actinic keratosis", "basal cell carcinoma", "benign keratosis", "dermatofibroma", "melanoma", "nevus",
        "vascular lesion",
    ),
    "fracturemnist3d": ("buckle", "nondisplaced", "displaced"),
    "nodulemnist3d": ("benign", "malignant"),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
    "organmnist3d": (
        "liver", "kidney-right", "kidney-left", "femur-right", "femur-left", "bladder", "heart", "lung-right",
        "lung-left", "spleen", "pancreas",
    ),
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
        "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("grade-0", "grade-1", "grade-2", "grade-3", "grade-4"),
    "synapsemnist3d": ("inhibitory", "excitatory"),
    "vesselmnist3d": ("vessel", "aneurysm"),
}  # fmt: skip

SEVERAL_PER_PATIENT: dict[str, str] = {
    "adrenalmnist3d": "1,584 glands of 792 patients",
    "bloodmnist": "many cells of each blood donor",
    "breastmnist": "780 images of 600 patients",
    "chestmnist": "112,120 images of 30,805 patients",
    "dermamnist": "HAM10000 has several images of some lesions",
    "fracturemnist3d": "several fractures of each of 660 scans",
    "nodulemnist3d": "several nodules of many patients",
    "octmnist": "about 109,000 scans of fewer than 6,000 patients",
    "organamnist": "several organs of each of 201 scans",
    "organcmnist": "several organs of each of 201 scans",
    "organsmnist": "several organs of each of 201 scans",
    "organmnist3d": "several organs of each of 201 scans",
    "pathmnist": "many patches of each slide",
    "pneumoniamnist": "several radiographs of many children",
    "retinamnist": "several views of both eyes of each patient",
    "synapsemnist3d": "all synapses are of one animal",
    "tissuemnist": "all cells are of three specimens",
    "vesselmnist3d": "many segments of each of 103 vessel trees",
}
"""Published counts that contradict one image per patient."""
