# Label Studio from its lock, without root. Build from the project's root:
#   docker build --file docker/label-studio.Dockerfile --tag cytoloop-label-studio .
FROM python:3.11-slim-bookworm

ENV PATH=/opt/label-studio/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN python3 -m venv /opt/label-studio && useradd --uid 1000 --user-group --no-create-home --shell /usr/sbin/nologin cytoloop

COPY locks/label-studio.txt /tmp/label-studio.txt
RUN pip install --require-hashes --no-deps -r /tmp/label-studio.txt
COPY --chmod=0755 docker/label-studio.sh /usr/local/bin/label-studio.sh
RUN install --directory --owner cytoloop --group cytoloop --mode 0700 /home/label-studio /home/cytoloop /home/cytoloop/data /home/cytoloop/data/renders

USER 1000
WORKDIR /home/label-studio
ENV HOME=/tmp \
    LABEL_STUDIO_BASE_DATA_DIR=/home/label-studio
EXPOSE 8080
ENTRYPOINT ["label-studio.sh"]
