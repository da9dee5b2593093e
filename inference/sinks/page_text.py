"""The page of ``page``: no file of its own, nothing from another machine, plain script."""

from __future__ import annotations

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>deepfake-fpga</title>
<link rel="icon" href="data:,">
<style>
  body { margin: 0; background: #101218; color: #f5f6fa; font: 16px/1.5 system-ui, sans-serif; }
  main { max-width: 1280px; margin: 0 auto; padding: 16px; }
  img { display: block; width: 100%; max-height: 75vh; object-fit: contain; background: #000;
        image-rendering: auto; }
  #verdict { display: inline-block; margin: 16px 16px 16px 0; padding: 4px 16px; font-size: 24px;
             font-weight: 600; border-radius: 4px; background: #606670; }
  #verdict.FAKE { background: #d62246; }
  #verdict.REAL { background: #168054; }
  #state { color: #b0b6c2; }
  dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 8px 24px;
       margin: 0; }
  dt { color: #b0b6c2; font-size: 13px; }
  dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
<img src="/stream" alt="The latest frame with its overlay">
<p><span id="verdict" role="status">waiting</span><span id="state">no frame yet</span></p>
<dl>
  <div><dt>frames</dt><dd id="frames">0</dd></div>
  <div><dt>frames per second</dt><dd id="rate">-</dd></div>
  <div><dt>mean fake probability</dt><dd id="mean">-</dd></div>
  <div><dt>frames judged FAKE</dt><dd id="fake">-</dd></div>
  <div><dt>fake probability of this frame</dt><dd id="now">-</dd></div>
  <div><dt>manipulated part of it</dt><dd id="part">-</dd></div>
  <div><dt>device</dt><dd id="device">-</dd></div>
  <div><dt>source</dt><dd id="source">-</dd></div>
</dl>
</main>
<script>
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  const percent = (value) => value === null ? "-" : (100 * value).toFixed(1) + " %";
  let seen = false;
  let lost = false;
  async function look() {
    let status;
    try {
      status = await (await fetch("/status.json")).json();
    } catch (error) {
      // The next run on this port goes on here.
      show("state", seen ? "the run has ended" : "no answer");
      lost = true;
      setTimeout(look, 2000);
      return;
    }
    if (lost) {
      document.querySelector("img").src = "/stream?" + Date.now();
    }
    seen = true;
    lost = false;
    const record = status.record;
    show("frames", status.frames);
    show("rate", status.frames_per_second === null ? "-" : status.frames_per_second);
    show("mean", percent(status.fake_probability));
    show("fake", status.judged ? status.fake + " of " + status.judged : "-");
    if (record) {
      const plate = document.getElementById("verdict");
      plate.className = record.verdict || "";
      plate.textContent = record.verdict || "not judged";
      show("now", percent(record.fake_probability));
      show("part", percent(record.mask_fraction));
      show("device", record.device);
      show("source", record.source + " #" + record.frame);
      show("state", record.reason || record.status);
    }
    setTimeout(look, 400);
  }
  look();
</script>
</body>
</html>
"""
