#!/bin/sh
# A package of Debian, from this source, into build/deb. `make deb` calls it, and installs first
# what it takes. $1: the Python whose setuptools builds, a whole path.
set -eu
cd "$(dirname "$0")/.."
python=$1
unset PYTHONDONTWRITEBYTECODE
built=$PWD/build/deb
rm -rf "$built"
mkdir -p "$built"
version=$("$python" tracer/_version.py)
"$python" -c "from setuptools import build_meta as b; b.build_sdist('$built')" >"$built/log"
tar -xf "$built/zctrace-$version.tar.gz" -C "$built"
cd "$built/zctrace-$version"
mkdir debian/wheels
"$python" -c "from setuptools import build_meta as b; b.build_wheel('debian/wheels')" >>"$built/log"
# Of what is compiled, a wheel for the Python of each release.
for version_of_python in 3.11 3.13; do
	"$python" -m pip download --quiet --disable-pip-version-check --no-deps \
		--only-binary :all: --platform manylinux2014_x86_64 \
		--python-version "$version_of_python" \
		--require-hashes -r debian/vendored.txt -d debian/vendored
done
# A commit comes before its release, as ~ does.
cat >debian/changelog <<END
zctrace ($(echo "$version" | sed 's/\.dev/~dev/')) unstable; urgency=medium

  * See /usr/share/doc/zctrace/CHANGELOG.md.

 -- zctrace maintainers <maintainers@zctrace.invalid>  $(date --rfc-email)
END
dpkg-buildpackage --build=binary --no-sign >>"$built/log" 2>&1 ||
	{ tail "$built/log" >&2; exit 1; }
cd "$built"
lintian --fail-on error,warning ./*.deb
mv "zctrace-$version/debian/wheels"/*.whl .
rm -r "zctrace-$version"
ls "$built"/*.deb
