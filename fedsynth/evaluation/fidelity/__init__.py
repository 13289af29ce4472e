"""How near synthetic images come to real ones, and how varied they are: FID, KID, coverage, MS-SSIM."""
