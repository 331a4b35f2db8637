# The app for everyone who does not use a Space. It runs on the CPU, and with the bundled models without a network.
#
#   docker build -t hfgan .
#   docker run --rm -p 7860:7860 hfgan                      # then open http://127.0.0.1:7860
#   docker run --rm -p 7860:7860 -v "$PWD/runs/mine/model:/models/mine:ro" hfgan --model /models/mine hfaces-64
#   docker run --rm -p 7860:7860 -v hfgan:/cache hfgan --model someone/model-on-the-hub
#
# What follows the name of the image are flags of `hfgan app`, of which --help tells. What users make lies in the
# container's /tmp, is deleted there after an hour, and is gone with the container.

FROM python:3.12-slim

# the version that README.md names and the tests ran with
ARG GRADIO=6.31.0

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    HF_HOME=/cache

RUN useradd --uid 1000 --create-home user && install --directory --owner user /cache
WORKDIR /app

# from what changes least to what changes most; the CPU build of torch comes first, as the default one brings CUDA along
COPY requirements.txt ./
RUN pip install "$(grep '^torch' requirements.txt)" --index-url https://download.pytorch.org/whl/cpu
RUN pip install -r requirements.txt "gradio[mcp]==${GRADIO}"
COPY model_cards/ model_cards/
COPY app.py README.md LICENSE ./
COPY hfgan/ hfgan/
RUN python -m compileall -q app.py hfgan

USER user
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"GRADIO_SERVER_PORT\"]}/gradio_api/app_id', timeout=8)"]

# Python as the first process of a container ignores SIGTERM
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "app.py"]
