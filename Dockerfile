# One image for every process of the deployment: workers, bridge, Flower. What runs is the command.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm


FROM ${PYTHON_IMAGE} AS pip
# How pip reaches its index, in a network that has its own: --build-arg PIP_INDEX_URL=https://...
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore


FROM pip AS packages
# Shipped without pip: nothing can be installed into it later.
RUN python -m venv --without-pip /venv
COPY requirements/app.txt .
RUN pip --python /venv/bin/python install --require-hashes -r app.txt


FROM pip AS wheel
# The build back end, pinned and hashed with the rest of the development packages.
COPY requirements/dev.txt .
RUN awk '/^[a-z]/ { keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } keep' dev.txt > build.txt \
 && python -m venv /build \
 && /build/bin/pip install --require-hashes -r build.txt
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY bridge bridge
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel .


FROM ${PYTHON_IMAGE}
# Numbers, not names: Kubernetes' runAsNonRoot can check only numbers.
RUN groupadd --gid 10001 taskcast \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin taskcast
COPY --from=packages /venv /venv
# Installed as a distribution: its commands (`celery -A tasks bridge`) exist for installed ones only. A layer of
# its own: a change of our code moves kilobytes, not the 370 MB of packages below it.
COPY --from=wheel /wheel /wheel
RUN pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check --no-deps --no-index /wheel/*.whl
WORKDIR /app
COPY config config
COPY tasks tasks
# PYTHONPATH names the application: Celery puts the working directory on the path only while it imports the app.
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
CMD ["celery", "-A", "tasks", "worker", "--loglevel=INFO"]
